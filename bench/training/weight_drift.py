"""How far each stage has moved from its pretrained weights: the weights themselves, and what it puts out."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.adapters import plain_tensors
from bench.models.factory import TransferModel
from bench.models.stages import Stage, pooled
from bench.strategies.plan import TransferPlan

IMAGES = 96  # of the validation part, evenly spaced: what every run of a study is measured on


class DriftReference:
    """The pretrained model and what its stages put out: what trained models are held against.

    Args:
        pretrained: never trained, and left as it is.
        batches: gives the images, shape (B, 3, H, W), on the model's device; the same ones at each call.
    """

    def __init__(self, pretrained: TransferModel, batches: Callable[[], Iterable[Tensor]]) -> None:
        self._pretrained = pretrained
        self._batches = batches

    @cached_property
    def _outputs(self) -> list[Tensor]:
        return stage_outputs(self._pretrained, self._batches())

    def measure(self, model: TransferModel, plan: TransferPlan) -> dict[str, float]:
        """Return `stage/<depth>-<name>/change` and `.../cka` for each stage, as far as they are finite.

        A stage that no phase trains, behind none that was, has not moved: 0 and 1, without a computation.
        `scratch` has no change, as it did not begin at these weights; its CKA says how much it came to
        resemble them.
        """
        trained = [plan.has_moved(stage) for stage in range(plan.stages)]
        first = trained.index(True) if any(trained) else plan.stages
        outputs = stage_outputs(model, self._batches()) if first < plan.stages else []
        values: dict[str, float] = {}
        for depth, stage in enumerate(model.stages):
            name = f"stage/{depth}-{stage.name}"
            values[f"{name}/cka"] = (
                linear_cka(self._outputs[depth], outputs[depth]) if depth >= first else 1.0
            )
            if plan.start == "pretrained":
                values[f"{name}/change"] = self._change(model, plan, depth) if trained[depth] else 0.0
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _change(self, model: TransferModel, plan: TransferPlan, depth: int) -> float:
        before = dict(self._pretrained.backbone.named_parameters())
        after = plain_tensors(model.backbone, plan.adapter)
        return relative_change(before, after, self._pretrained.stages[depth])


@torch.no_grad()
def relative_change(before: Mapping[str, Tensor], after: Mapping[str, Tensor], stage: Stage) -> float:
    """Return ||w - w0|| / ||w0||, w all parameters of the stage as one vector.

    BatchNorm's running statistics are no parameters: they follow the data. What they do is part of the CKA.
    """
    names = sorted(stage.tensors & before.keys())
    moved = sum(((after[n].double() - before[n].double()) ** 2).sum().item() for n in names)
    size = sum((before[n].double() ** 2).sum().item() for n in names)
    return math.sqrt(moved / size) if size else math.nan


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear CKA of two sets of features of the same images.

    ||Yc' Xc||^2 / (||Xc' Xc|| ||Yc' Yc||), Frobenius norms, c for centred columns: Kornblith, Norouzi, Lee
    and Hinton 2019, "Similarity of neural network representations revisited", section 3 and table 1. With
    fewer images than features the same number is taken from the n x n Gram matrices.

    Args:
        x: float, shape (n, p).
        y: float, shape (n, q).

    Returns:
        From 0 to 1, which says the same but for rotation and scale; NaN if all images have the same features.
    """
    x, y = (value.double() - value.double().mean(0) for value in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):
        gram_x, gram_y = x @ x.T, y @ y.T
        shared, own = (gram_x * gram_y).sum(), gram_x.norm() * gram_y.norm()
    else:
        shared, own = (y.T @ x).norm() ** 2, (x.T @ x).norm() * (y.T @ y).norm()
    return (shared / own).item() if own > 0 else math.nan


@torch.inference_mode()
def stage_outputs(model: TransferModel, batches: Iterable[Tensor]) -> list[Tensor]:
    """Return what each stage puts out, averaged over positions: a tensor (n, channels) for each.

    Runs in eval mode, and leaves every module in the mode that it was in.
    """
    backbone = model.backbone
    last = {stage.modules[-1]: depth for depth, stage in enumerate(model.stages)}
    found: list[list[Tensor]] = [[] for _ in last]

    def record(depth: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            while isinstance(output, tuple | list):
                output = output[0]
            found[depth].append(pooled(output.float()))

        return hook

    handles = [backbone.get_submodule(name).register_forward_hook(record(d)) for name, d in last.items()]
    try:
        with _evaluating(backbone):
            for batch in batches:
                backbone(batch)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in found]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
