"""Optimizer groups from a row of the matrix: what is trained, at which rate, and what is not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from bench.models.adapters import ADAPTERS
from bench.models.factory import TransferModel
from bench.models.initialization import NORMALISATIONS
from bench.strategies.plan import Parameters
from bench.study.schema import Training


def trainable_groups(
    model: TransferModel, multipliers: Sequence[float]
) -> list[list[tuple[str, nn.Parameter]]]:
    """Return the parameters of each stage, and last of the head; a stage with multiplier 0 gives none.

    Raises:
        ValueError: if a parameter would be missing or counted twice.
    """
    backbone = dict(model.backbone.named_parameters())
    groups = [[(n, p) for n, p in backbone.items() if n in stage.tensors] for stage in model.stages]
    groups.append([(f"head.{n}", p) for n, p in model.head.named_parameters()])
    if sum(map(len, groups)) != len(list(model.parameters())) or len(multipliers) != len(groups):
        raise ValueError("stages and head don't hold every parameter exactly once")
    return [group if m else [] for group, m in zip(groups, multipliers, strict=True)]


def _of_norms(model: TransferModel) -> set[int]:
    norms = (m for m in model.backbone.modules() if isinstance(m, NORMALISATIONS))
    return {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}


def _added(model: TransferModel) -> set[int]:
    is_added = [kind.is_added for kind in ADAPTERS.values()]
    named = model.backbone.named_parameters()
    return {id(p) for name, p in named if any(check(name) for check in is_added)}


# From a model to the parameters of its backbone, by identity, that a trained stage trains.
SELECTIONS: Mapping[Parameters, Callable[[TransferModel], set[int]]] = {
    "all": lambda model: {id(p) for p in model.backbone.parameters()},
    "norm": _of_norms,
    "bias": lambda model: {id(p) for n, p in model.backbone.named_parameters() if n.endswith("bias")},
    "adapter": _added,
}


def freeze(model: TransferModel, multipliers: Sequence[float], parameters: Parameters = "all") -> None:
    """Let exactly these parameters of the stages with a multiplier above zero take gradients, and the head.

    Raises:
        ValueError: if the stages have no such parameters.
    """
    *stages, head = trainable_groups(model, multipliers)
    selected = SELECTIONS[parameters](model)
    trained = {id(p) for group in stages for _, p in group if id(p) in selected}
    if any(stages) and not trained:
        raise ValueError(f"the model has no {parameters} parameters that could be trained")
    trained |= {id(p) for _, p in head}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def build_optimizer(
    model: TransferModel,
    multipliers: Sequence[float],
    learning_rate: float,
    weight_decay: float,
    training: Training,
) -> Optimizer:
    """Build the optimizer: two groups a trained stage, with and without weight decay, of what is not frozen.

    Norms' weights and all biases are not decayed (Goyal et al. 2017, section 5.3).
    """
    undecayed = {id(p) for m in model.modules() if isinstance(m, NORMALISATIONS) for p in m.parameters()}
    groups = []
    rows = zip(trainable_groups(model, multipliers), multipliers, strict=True)
    for stage, (parameters, multiplier) in enumerate(rows):
        plain = [n.endswith("bias") or p.ndim <= 1 or id(p) in undecayed for n, p in parameters]
        for exempt, decay in ((False, weight_decay), (True, 0.0)):
            pairs = zip(parameters, plain, strict=True)
            members = [p for (_, p), is_plain in pairs if is_plain == exempt and p.requires_grad]
            if members:
                rate = learning_rate * multiplier
                rates = {"lr": rate, "peak_lr": rate}
                groups.append({"params": members, **rates, "weight_decay": decay, "stage": stage})
    fused = all(p.device.type in {"cpu", "cuda"} for p in model.parameters())
    if training.optimizer == "sgd":
        return SGD(
            groups, lr=learning_rate, momentum=training.momentum, nesterov=training.momentum > 0, fused=fused
        )
    return AdamW(groups, lr=learning_rate, fused=fused)


def clip_gradients(groups: Iterable[Mapping[str, Any]], limit: float | None) -> None:
    """Scale all gradients of the groups together so that their global 2-norm is at most `limit`."""
    if limit is not None:
        parameters = [p for group in groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, limit)
