"""Turn a classifier with a fully connected head (VGG, AlexNet) into a fully convolutional network.

Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", section 3.1: a
fully connected layer on a map of h x w positions is a convolution with an h x w kernel. On images of the
size that the classifier was made for, both give the same scores; on larger ones there is a map of scores.
"""

import copy

import torch
from torch import nn

from bench.core.errors import InputError

FCN_PADDING = 100  # of the first convolution, in pixels: so that small images, too, leave a map of scores


def convolutionise(classifier: nn.Module) -> nn.Sequential:
    """Return `features` and `classifier` with convolutions for linear layers: (B, 3, H, W) to (B, C, h, w).

    Names are the classifier's own. Every linear layer becomes a convolution with the same weights: the first
    has a kernel of the size to which `avgpool` brings the map (7x7 in VGG, 6x6 in AlexNet), the others 1x1.
    The convolutions before are the classifier's own, not copies.

    Args:
        classifier: with `features`, `avgpool` and `classifier`, as torchvision's VGG and AlexNet have them.

    Raises:
        InputError: for a model of another form, or if a linear layer doesn't fit the map.
    """
    parts = [getattr(classifier, name, None) for name in ("features", "avgpool", "classifier")]
    features, pool, head = parts
    if not isinstance(features, nn.Sequential) or not isinstance(head, nn.Sequential):
        what = f"{type(classifier).__name__} has no fully connected head that could become convolutions"
        raise InputError(what, "source.model", "choose torchvision/vgg16, another VGG or alexnet")
    kernel = _pair(getattr(pool, "output_size", 1))
    channels = next(m.out_channels for m in reversed(list(features.modules())) if isinstance(m, nn.Conv2d))
    layers: list[nn.Module] = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append(_as_convolution(layer, channels, kernel))
            channels, kernel = layer.out_features, (1, 1)
        else:
            layers.append(copy.deepcopy(layer))
    whole = nn.Sequential()
    whole.add_module("features", features)
    whole.add_module("classifier", nn.Sequential(*layers))
    return whole


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _as_convolution(linear: nn.Linear, channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    height, width = kernel
    if linear.in_features != channels * height * width:
        what = f"a layer of {linear.in_features} inputs can't be a {height}x{width} convolution of {channels}"
        raise InputError(f"{what} channels", "source.model")
    convolution = nn.Conv2d(channels, linear.out_features, kernel, bias=linear.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.view_as(convolution.weight))
        if linear.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution


def fcn_backbone(classifier: nn.Module) -> nn.Module:
    """Return what FCN-32s has before its scores: padded by 100 pixels, without the source's last layer.

    Pooling rounds sizes up, as in Caffe: rounded down, the upsampled scores would not cover the image.
    """
    whole = convolutionise(classifier)
    first = next(module for module in whole.modules() if isinstance(module, nn.Conv2d))
    first.padding = (FCN_PADDING, FCN_PADDING)
    for module in whole.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    layers = whole.get_submodule("classifier")
    assert isinstance(layers, nn.Sequential)
    last = max(place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    whole.add_module("classifier", layers[:last])
    return whole
