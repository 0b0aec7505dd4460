"""Optimizer groups from a row of the matrix, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.models.build import TransferModel
from bench.models.initialise import NORMALISATIONS
from bench.study import Training


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


def freeze(model: TransferModel, multipliers: Sequence[float]) -> None:
    """Let exactly the stages with a multiplier above zero take gradients."""
    trained = {id(p) for group in trainable_groups(model, multipliers) for _, p in group}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def build_optimizer(
    model: TransferModel,
    multipliers: Sequence[float],
    learning_rate: float,
    weight_decay: float,
    training: Training,
) -> Optimizer:
    """Build the optimizer: two groups a trained stage, with and without weight decay.

    Norms' weights and all biases are not decayed (Goyal et al. 2017, section 5.3).
    """
    undecayed = {id(p) for m in model.modules() if isinstance(m, NORMALISATIONS) for p in m.parameters()}
    groups = []
    rows = zip(trainable_groups(model, multipliers), multipliers, strict=True)
    for stage, (parameters, multiplier) in enumerate(rows):
        plain = [n.endswith("bias") or p.ndim <= 1 or id(p) in undecayed for n, p in parameters]
        for exempt, decay in ((False, weight_decay), (True, 0.0)):
            members = [p for (_, p), is_plain in zip(parameters, plain, strict=True) if is_plain == exempt]
            if members:
                rate = learning_rate * multiplier
                groups.append({"params": members, "lr": rate, "weight_decay": decay, "stage": stage})
    fused = all(p.device.type in {"cpu", "cuda"} for p in model.parameters())
    if training.optimizer == "sgd":
        return SGD(
            groups, lr=learning_rate, momentum=training.momentum, nesterov=training.momentum > 0, fused=fused
        )
    return AdamW(groups, lr=learning_rate, fused=fused)


def rate_factor(progress: float, training: Training) -> float:
    """Return the share of the peak learning rate at a share of the phase, both in [0, 1].

    one_cycle: Smith and Topin 2018, cosine up from 1/25 over the warm-up and down to 1/10,000. cosine:
    Loshchilov and Hutter 2017 after a linear warm-up. step: a drop every `step_every` of the phase.
    """
    if training.schedule == "constant":
        return 1.0
    if training.schedule == "step":
        return float(training.step_factor ** math.floor(progress / training.step_every + 1e-9))
    rising = progress < training.warmup
    share = progress / training.warmup if rising else (progress - training.warmup) / (1 - training.warmup)
    if training.schedule == "one_cycle":
        low, high = (1 / 25, 1.0) if rising else (1.0, 1e-4)
        return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
    return share if rising else (1 + math.cos(math.pi * share)) / 2


def build_schedule(optimizer: Optimizer, training: Training, steps: int) -> LambdaLR:
    """Build the schedule of a phase; step `i` of `steps` uses the factor at (i + 1/2) / steps."""
    return LambdaLR(optimizer, lambda step: rate_factor(min((step + 0.5) / steps, 1.0), training))


def clip_gradients(groups: Iterable[Mapping[str, Any]], limit: float | None) -> None:
    """Scale all gradients of the groups together so that their global 2-norm is at most `limit`."""
    if limit is not None:
        parameters = [p for group in groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, limit)
