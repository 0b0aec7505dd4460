"""Depthwise convolutions on maps that are smaller than their kernel, which CPUs train many times slower.

The last stages of a mobile network see maps of 2 to 4 pixels where images are small. oneDNN has no fast
backward pass for a depthwise kernel that is larger than its map (5x5 on 3x3 with 1,152 channels: 34 ms, and
1 forward). Where part of the padding is zeros in the map instead, it has one (9 ms), and the sum is the same.
"""

from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional


class _OnSmallMaps(nn.Conv2d):
    """A depthwise convolution that pads a small map itself where a backward pass will follow."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, C, H, W)."""
        trains = is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        lacking = self._lacking(x) if trains else (0, 0)
        if not any(lacking):
            return super().forward(x)
        high, wide = lacking
        assert not isinstance(self.padding, str)
        left = (self.padding[0] - high, self.padding[1] - wide)
        padded = functional.pad(x, (wide, wide, high, high))
        return functional.conv2d(
            padded, self.weight, self.bias, self.stride, left, self.dilation, self.groups
        )

    def _lacking(self, x: Tensor) -> tuple[int, int]:
        """Return by how many zeros on either side a map falls short of the kernel, of those that pad it."""
        (height, width), (tall, broad) = x.shape[-2:], self.kernel_size
        assert not isinstance(self.padding, str)
        most_high, most_wide = self.padding
        return min(most_high, _half(tall - height)), min(most_wide, _half(broad - width))


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
