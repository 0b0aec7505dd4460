"""What replaces the source's classifier."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.registry import Registry
from bench.study import Head


@dataclass(frozen=True)
class HeadKind:
    """A head: built from (features, classes, settings); `pooled` says whether it takes pooled features."""

    name: str
    summary: str
    pooled: bool
    build: Callable[[int, int, Head], nn.Module]


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


def _linear(features: int, classes: int, settings: Head) -> nn.Module:
    linear = nn.Linear(features, classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout(settings.dropout), linear) if settings.dropout else linear


def _concat_pool(features: int, classes: int, settings: Head) -> nn.Module:
    """Build the head of Howard and Gugger 2020 (fastai): half the dropout before the hidden layer."""
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


HEADS.add(HeadKind("linear", "one linear layer on the pooled features", pooled=True, build=_linear))
HEADS.add(
    HeadKind(
        "concat_pool",
        "average + max pooling, BatchNorm, dropout, hidden layer, BatchNorm, dropout, linear",
        pooled=False,
        build=_concat_pool,
    )
)
