"""Train the linear heads of many runs as one computation: each is what it would be alone, to rounding.

Trials and seeds that train only a head on stored features differ in a few numbers; alone, each step costs
more in calls than in arithmetic.
"""

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from bench.training.cached_features import Features
from bench.training.inputs import batches
from bench.training.loop import (
    DivergedError,
    Row,
    Task,
    Trained,
    epoch_order,
    note_epoch,
)
from bench.training.metrics import score
from bench.training.optimizers import build_optimizer, clip_gradients, freeze
from bench.training.schedules import build_schedule


def can_train_together(tasks: Sequence[Task]) -> bool:
    """Say whether the runs train nothing but a linear layer on stored features, in as many steps each."""
    return all(
        isinstance(task.inputs, Features)
        and isinstance(task.model.head, nn.Linear)
        and task.forward is task.model.head
        and len(task.plan.phases) == 1
        and (len(task.train), len(task.val), task.training)
        == (len(tasks[0].train), len(tasks[0].val), tasks[0].training)
        for task in tasks
    )


def train_heads(tasks: Sequence[Task]) -> list[Trained | DivergedError]:
    """Train all heads to the last epoch and restore the best epoch of each; see `training.train`.

    The seconds of a run are its share of those of all.

    Args:
        tasks: for which `can_train_together` holds.

    Returns:
        What came of each run, in order; a run whose loss is not finite doesn't disturb the others.
    """
    training = tasks[0].training
    results: list[Trained | DivergedError] = [Trained() for _ in tasks]
    heads = [task.model.head for task in tasks]
    optimizers = [_optimizer(task) for task in tasks]
    groups = [list(own.param_groups) for own in optimizers]
    optimizer = optimizers[0]
    for group in itertools.chain(*groups[1:]):
        optimizer.add_param_group(group)
    schedule = build_schedule(
        optimizer, training, training.epochs * -(-len(tasks[0].train) // training.batch_size)
    )
    for epoch in range(training.epochs):
        started = time.perf_counter()
        losses = torch.zeros(len(tasks), device=tasks[0].labels.device)
        for chosen in _steps(tasks, epoch):
            inputs = [t.inputs.train(b, t.seed, epoch) for t, b in _distinct(tasks, chosen)]
            labels = torch.stack([t.labels[b] for t, b in zip(tasks, chosen, strict=True)])
            with tasks[0].execution.autocast():
                logits = _apply(heads, inputs)
            loss = _losses(logits, labels, training.label_smoothing)
            optimizer.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            for own in groups:
                clip_gradients(own, training.gradient_clip)
            rates = [max(group["lr"] for group in own) for own in groups]
            optimizer.step()
            schedule.step()
            losses += loss.detach() * len(chosen[0])
        trained = time.perf_counter()
        rows = _rows(tasks, heads, epoch, rates, (losses / len(tasks[0].train)).tolist())
        evaluated = time.perf_counter()
        for place, (task, row) in enumerate(zip(tasks, rows, strict=True)):
            result = results[place]
            if isinstance(result, DivergedError):
                continue
            result.train_seconds += (trained - started) / len(tasks)
            result.eval_seconds += (evaluated - trained) / len(tasks)
            try:
                note_epoch(task, result, row)
            except DivergedError as error:
                results[place] = error
    for task, result in zip(tasks, results, strict=True):
        if isinstance(result, Trained):
            task.model.load_state_dict(result.best, strict=False)
    return results


def _optimizer(task: Task) -> Optimizer:
    multipliers = task.plan.phases[0].multipliers
    freeze(task.model, multipliers)
    task.model.set_training(multipliers)
    return build_optimizer(task.model, multipliers, task.learning_rate, task.weight_decay, task.training)


def _steps(tasks: Sequence[Task], epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield for each step the images that each run takes, in the order that it has alone."""
    size = tasks[0].training.batch_size
    return zip(*(batches(epoch_order(task, epoch), size) for task in tasks), strict=True)


def _distinct(tasks: Sequence[Task], chosen: Sequence[np.ndarray]) -> list[tuple[Task, np.ndarray]]:
    """Return the tasks with their images; only the first where all have the same inputs and seed."""
    pairs = list(zip(tasks, chosen, strict=True))
    same = all(t.inputs is tasks[0].inputs and t.seed == tasks[0].seed for t in tasks)
    return pairs[:1] if same else pairs


def _apply(heads: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    """Return logits (K, B, C) of K linear heads on inputs (B, F): one for all, or one for each."""
    weights = torch.stack([head.get_parameter("weight") for head in heads])
    biases = torch.stack([head.get_parameter("bias") for head in heads])
    if len(inputs) == 1:
        kinds, classes, features = weights.shape
        flat = functional.linear(inputs[0], weights.reshape(kinds * classes, features), biases.reshape(-1))
        return flat.view(-1, kinds, classes).transpose(0, 1)
    return torch.baddbmm(biases[:, None], torch.stack(list(inputs)), weights.transpose(1, 2))


def _losses(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of each run: logits (K, B, C), labels (K, B)."""
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), label_smoothing=smoothing, reduction="none"
    )
    return flat.view(labels.shape).mean(1)


@torch.inference_mode()
def _rows(
    tasks: Sequence[Task],
    heads: Sequence[nn.Module],
    epoch: int,
    rates: Sequence[float],
    losses: Sequence[float],
) -> list[Row]:
    """Return an epoch's row of the curve for each run."""
    size = tasks[0].inputs.eval_batch
    parts = []
    for chosen in zip(*(batches(task.val, size) for task in tasks), strict=True):
        pairs = list(zip(tasks, chosen, strict=True))
        same = all(t.inputs is tasks[0].inputs and np.array_equal(b, chosen[0]) for t, b in pairs)
        parts.append(_apply(heads, [t.inputs.evaluate(b) for t, b in (pairs[:1] if same else pairs)]).float())
    logits = torch.cat(parts, 1)
    rows = []
    for task, own, rate, loss in zip(tasks, logits, rates, losses, strict=True):
        row = {"epoch": epoch, "learning_rate": rate, "train/loss": loss}
        scores = score(own, task.labels[task.val])
        rows.append(row | {f"val/{name}": value for name, value in scores.items()})
    return rows
