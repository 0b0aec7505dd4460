"""What replaces the source's classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.core.registry import Registry
from bench.models.heads.segmentation import FCN32s, UNet
from bench.study.schema import Head

# Pooled features; the last map; a map of each resolution; or the last map of the fully convolutional network.
Takes = Literal["pooled", "map", "maps", "convolutional"]


@dataclass(frozen=True)
class HeadKind:
    """A head.

    Args:
        takes: what of the backbone.
        build: from (number of features, or of channels of each map; classes; settings; pixels of a side).
    """

    name: str
    summary: str
    takes: Takes
    build: Callable[[tuple[int, ...], int, Head, int], nn.Module]


HEADS: Registry[HeadKind] = Registry("head")


class ConcatPool(nn.Module):
    """Average and maximum over all positions, concatenated: (B, ..., C, ...) to (B, 2C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """Pool every axis but the batch and the channels."""
        axis = 1 if features.shape[1] == self.channels else features.ndim - 1
        flat = features.movedim(axis, 1).flatten(2)
        return torch.cat([flat.mean(2), flat.amax(2)], 1)


def _linear(widths: tuple[int, ...], classes: int, settings: Head, _side: int) -> nn.Module:
    linear = nn.Linear(widths[0], classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout(settings.dropout), linear) if settings.dropout else linear


def _concat_pool(widths: tuple[int, ...], classes: int, settings: Head, _side: int) -> nn.Module:
    """Build the head of Howard and Gugger 2020 (fastai): half the dropout before the hidden layer."""
    features = widths[0]
    hidden = nn.Linear(2 * features, settings.hidden, bias=False)
    last = nn.Linear(settings.hidden, classes)
    nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        ConcatPool(features),
        nn.BatchNorm1d(2 * features),
        nn.Dropout(settings.dropout / 2),
        hidden,
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(settings.hidden),
        nn.Dropout(settings.dropout),
        last,
    )


HEADS.add(HeadKind("linear", "one linear layer on the pooled features", "pooled", _linear))
HEADS.add(
    HeadKind(
        "concat_pool",
        "average + max pooling, BatchNorm, dropout, hidden layer, BatchNorm, dropout, linear",
        "map",
        _concat_pool,
    )
)
HEADS.add(HeadKind("unet", "the decoder of U-Net, with skip connections; a class per pixel", "maps", UNet))
HEADS.add(
    HeadKind(
        "fcn32s",
        "FCN-32s: scores of a convolutionised VGG, upsampled 32 times; a class per pixel",
        "convolutional",
        lambda widths, classes, settings, side: FCN32s(widths[0], classes, settings, side),
    )
)
