"""The one training loop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.execution import Execution
from bench.inputs import Inputs, batches
from bench.metrics import score
from bench.models.build import TransferModel
from bench.optimizers import build_optimizer, build_schedule, clip_gradients, freeze
from bench.spec import derive_seed
from bench.strategies import TransferPlan
from bench.study import Training

Row = dict[str, float]


class DivergedError(Exception):
    """The loss is not finite; the run stops with this as its reason."""


@dataclass(frozen=True, eq=False)
class Task:
    """All that a run trains on, and how.

    Args:
        model: the whole model, whose parameters are trained.
        forward: from `inputs` to logits: the model, or what stands behind its frozen prefix.
        labels: int64, shape (N,), of the whole data set, on the device.
        metric: the name of the metric that chooses the best epoch.
    """

    model: TransferModel
    forward: nn.Module
    plan: TransferPlan
    inputs: Inputs
    labels: Tensor
    train: np.ndarray
    val: np.ndarray
    training: Training
    learning_rate: float
    weight_decay: float
    seed: int
    execution: Execution
    metric: str = "accuracy"


@dataclass
class Trained:
    """What came of training: the curve, and the best epoch's weights, restored in the model."""

    curve: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best: Mapping[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    stopped: bool = False

    @property
    def best_row(self) -> Row:
        """The epoch whose weights are restored."""
        return self.curve[self.best_epoch]


def train(task: Task, keep_going: Callable[[Row], bool] = lambda _row: True) -> Trained:
    """Train to the last epoch, or until `keep_going` says no, and restore the best epoch by val.

    Raises:
        DivergedError: if a loss is not finite.
    """
    result = Trained()
    torch.manual_seed(derive_seed(task.seed, "dropout"))
    for multipliers, epochs in phase_epochs(task.plan, task.training.epochs):
        freeze(task.model, multipliers)
        optimizer = build_optimizer(
            task.model, multipliers, task.learning_rate, task.weight_decay, task.training
        )
        steps = epochs * -(-len(task.train) // task.training.batch_size)
        schedule = build_schedule(optimizer, task.training, steps)
        for _ in range(epochs):
            started = time.perf_counter()
            task.model.set_training(multipliers)
            order = epoch_order(task, len(result.curve))
            losses = []
            for batch in batches(order, task.training.batch_size):
                inputs = task.inputs.train(batch, task.seed, len(result.curve))
                with task.execution.autocast():
                    logits = task.forward(inputs)
                loss = _loss(logits, task.labels[batch], task.training.label_smoothing)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                clip_gradients(optimizer.param_groups, task.training.gradient_clip)
                rate = max(group["lr"] for group in optimizer.param_groups)
                optimizer.step()
                schedule.step()
                losses.append(loss.detach() * len(batch))
            train_loss = torch.stack(losses).sum().item() / len(order)
            trained = time.perf_counter()
            result.train_seconds += trained - started
            row = {"epoch": len(result.curve), "learning_rate": rate, "train/loss": train_loss}
            row |= {f"val/{name}": value for name, value in evaluate(task, task.val).items()}
            result.eval_seconds += time.perf_counter() - trained
            note_epoch(task, result, row)
            if not keep_going(row):
                result.stopped = True
                return result
    task.model.load_state_dict(result.best, strict=False)
    return result


def _loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def cut_short(result: Trained | DivergedError, metric: str, keep_going: Callable[[Row], bool]) -> Trained:
    """Return a training that went to its end as it would have been had `keep_going` been asked at each epoch.

    Raises:
        DivergedError: if that is what came of it.
    """
    if isinstance(result, DivergedError):
        raise result
    for number, row in enumerate(result.curve, 1):
        if not keep_going(row):
            share = number / len(result.curve)
            curve = result.curve[:number]
            best = max(range(number), key=lambda epoch: _rank(curve[epoch], metric))
            return Trained(curve, best, {}, result.train_seconds * share, result.eval_seconds * share, True)
    return result


def epoch_order(task: Task, epoch: int) -> np.ndarray:
    """Return the training images in the order of an epoch: the same for every strategy of a seed."""
    order: np.ndarray = np.random.default_rng([task.seed, epoch]).permutation(task.train)
    return order


def note_epoch(task: Task, result: Trained, row: Row) -> None:
    """Add an epoch to the curve, and keep its weights if it is the best so far.

    Raises:
        DivergedError: if a value is not finite.
    """
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(f"{bad[0]} is not finite in epoch {len(result.curve) + 1}")
    result.curve.append(row)
    if not result.best or _rank(row, task.metric) > _rank(result.best_row, task.metric):
        result.best_epoch = len(result.curve) - 1
        result.best = trained_state(task.model, task.plan)


def _rank(row: Row, metric: str) -> tuple[float, float]:
    """Return what the best epoch has most of: the metric on val, then, among equals, the lower loss."""
    return row[f"val/{metric}"], -row["val/loss"]


def trained_state(model: TransferModel, plan: TransferPlan) -> dict[str, Tensor]:
    """Return copies of all tensors that the plan lets change: parameters and running statistics."""
    moved = [any(phase.multipliers[stage] for phase in plan.phases) for stage in range(plan.stages)]
    names = {
        f"backbone.{n}" for stage, m in zip(model.stages, moved, strict=True) if m for n in stage.tensors
    }
    state = model.state_dict()
    return {n: t.detach().clone() for n, t in state.items() if n in names or n.startswith("head.")}


def phase_epochs(plan: TransferPlan, epochs: int) -> list[tuple[tuple[float, ...], int]]:
    """Divide the epochs among the phases, by rounding where each one ends; one that gets none is left out."""
    ends = [round(epochs * sum(p.share for p in plan.phases[: n + 1])) for n in range(len(plan.phases))]
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return [(p.multipliers, count) for p, count in zip(plan.phases, counts, strict=True) if count]


def evaluate(task: Task, indices: np.ndarray) -> dict[str, float]:
    """Return the scores on images `indices`, in eval mode."""
    return score(predict(task, indices), task.labels[indices])


@torch.inference_mode()
def predict(task: Task, indices: np.ndarray) -> Tensor:
    """Return the logits of images `indices`, shape (N, classes), float32, in eval mode."""
    task.model.eval()
    task.forward.eval()
    return torch.cat(
        [
            task.forward(task.inputs.evaluate(batch)).float()
            for batch in batches(indices, task.inputs.eval_batch)
        ]
    )
