"""Depthwise convolutions on maps that are smaller than their kernel, which CPUs train many times slower.

The last stages of a mobile network see maps of 2 to 4 pixels where images are small. oneDNN has no fast
backward pass for a depthwise kernel that is larger than its map (5x5 on 3x3 with 1,152 channels: 34 ms, and
1 forward). Where part of the padding is zeros in the map instead, it has one (9 ms), and the sum is the same.
Weights that meet nothing but padding (all but the inner 3x3 on a map of 2x2) are left out (1 ms).
"""

from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional


class _OnSmallMaps(nn.Conv2d):
    """A depthwise convolution that is computed in another way on a small map whose gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, C, H, W)."""
        trains = is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        (height, width), (tall, broad) = x.shape[-2:], self.kernel_size
        if not trains or (height >= tall and width >= broad):
            return super().forward(x)
        assert not isinstance(self.padding, str)
        high, wide = self._idle(0, height), self._idle(1, width)
        weight = self.weight[:, :, high : tall - high, wide : broad - wide].contiguous()
        padding = self.padding[0] - high, self.padding[1] - wide
        above = min(padding[0], _half(tall - 2 * high - height))
        beside = min(padding[1], _half(broad - 2 * wide - width))
        padded = functional.pad(x, (beside, beside, above, above))
        left = padding[0] - above, padding[1] - beside
        return functional.conv2d(padded, weight, self.bias, self.stride, left, self.dilation, self.groups)

    def _idle(self, axis: int, size: int) -> int:
        """Return how many rows, or columns, of weights on either side never meet a map of this size."""
        kernel, padding = self.kernel_size[axis], self.padding[axis]
        is_centred = kernel % 2 and padding == kernel // 2 and self.stride[axis] == 1
        return _half(kernel - (2 * size - 1)) if is_centred else 0


def _half(missing: int) -> int:
    return max(0, -(-missing // 2))


def speed_up_small_maps(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model train fast on a CPU where maps are small, in place."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_plain_depthwise(module):
            module.__class__ = _OnSmallMaps


def _is_plain_depthwise(module: nn.Conv2d) -> bool:
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return zeros and module.dilation == (1, 1) and module.groups == module.in_channels > 1
