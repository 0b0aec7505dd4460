"""The one training loop."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.core.runs import derive_seed
from bench.models.factory import TransferModel
from bench.strategies.base import TransferPlan
from bench.study.schema import Training
from bench.system.signals import held_back
from bench.training.checkpoints import Checkpoint
from bench.training.execution import Execution
from bench.training.inputs import Inputs, batches
from bench.training.optimizers import build_optimizer, clip_gradients, freeze
from bench.training.schedules import build_schedule
from bench.training.targets import Classes, Targets

Row = dict[str, float]


class DivergedError(Exception):
    """The loss is not finite; the run stops with this as its reason."""


@dataclass(frozen=True, eq=False)
class Task:
    """All that a run trains on, and how.

    Args:
        model: the whole model, whose parameters are trained.
        forward: from `inputs` to logits: the model, or what stands behind its frozen prefix.
        targets: what is to be got right.
        metric: the name of the metric that chooses the best epoch.
        pieces: in how many each batch is computed, for a device without room for all of it. The gradient is
            that of the whole batch, but BatchNorm takes its statistics from each piece (Goyal et al. 2017,
            section 2.3).
    """

    model: TransferModel
    forward: nn.Module
    plan: TransferPlan
    inputs: Inputs
    targets: Targets
    train: np.ndarray
    val: np.ndarray
    training: Training
    learning_rate: float
    weight_decay: float
    seed: int
    execution: Execution
    metric: str = "accuracy"
    pieces: int = 1

    @property
    def labels(self) -> Tensor:
        """The classes of all images, where each image has one."""
        if not isinstance(self.targets, Classes):
            raise ValueError("images with a class per pixel have no labels")  # noqa: TRY004 - a setting
        return self.targets.labels


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


def train(
    task: Task,
    keep_going: Callable[[Row], bool] = lambda _row: True,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train to the last epoch, or until `keep_going` says no, and restore the best epoch by val.

    Args:
        task: what to train.
        keep_going: asked after each epoch; after a resumption again for those before it.
        checkpoint: where training goes on if it was begun before, and is saved now and then.

    Raises:
        DivergedError: if a loss is not finite.
        KeyboardInterrupt: after the step under way, if asked to stop.
    """
    torch.manual_seed(derive_seed(task.seed, "dropout"))
    saved = _load(task, checkpoint)
    result = Trained(**saved["result"]) if saved else Trained()
    result.stopped = not all(map(keep_going, result.curve))
    last = 0
    for multipliers, epochs in phase_epochs(task.plan, task.training.epochs):
        last += epochs
        if result.stopped or (saved and last < saved["phase_end"]):
            continue
        freeze(task.model, multipliers)
        optimizer = build_optimizer(
            task.model, multipliers, task.learning_rate, task.weight_decay, task.training
        )
        steps = epochs * -(-len(task.train) // task.training.batch_size)
        loop = _Loop(task, optimizer, build_schedule(optimizer, task.training, steps), checkpoint)
        if saved and saved["phase_end"] == last:
            loop.restore(saved)
        while len(result.curve) < last and not result.stopped:
            row = loop.epoch(multipliers, result, last)
            row |= loop.evaluate(result, last)
            with held_back() as stopping:
                note_epoch(task, result, row)
                loop.losses = []
                result.stopped = not keep_going(row)
                if stopping():
                    loop.save(result, last)
    if not result.stopped:
        task.model.load_state_dict(result.best, strict=False)
    return result


@dataclass
class _Loop:
    """The steps of a phase, and all that decides the ones to come."""

    task: Task
    optimizer: Optimizer
    schedule: LambdaLR
    checkpoint: Checkpoint | None
    losses: list[Tensor] = field(default_factory=list)  # of the epoch's steps so far, each times its images
    rate: float = 0.0  # of the last step

    def __post_init__(self) -> None:
        self.forward = self.task.execution.forward(self.task.forward)

    def epoch(self, multipliers: Sequence[float], result: Trained, phase_end: int) -> Row:
        """Train to the end of the epoch; return its row, without val."""
        task, number = self.task, len(result.curve)
        order = epoch_order(task, number)
        task.model.set_training(multipliers)
        started = time.perf_counter()
        with held_back() as stopping:
            for batch in list(batches(order, task.training.batch_size))[len(self.losses) :]:
                self._step(batch, number)
                if self.checkpoint and (stopping() or self.checkpoint.is_due):
                    result.train_seconds += time.perf_counter() - started
                    self.save(result, phase_end)
                    started = time.perf_counter()
                if stopping():
                    break
        train_loss = torch.stack(self.losses).sum().item() / len(order)
        result.train_seconds += time.perf_counter() - started
        return {"epoch": number, "learning_rate": self.rate, "train/loss": train_loss}

    def evaluate(self, result: Trained, phase_end: int) -> Row:
        """Return the scores on val after an epoch; a request to stop saves the epoch's steps first."""
        started = time.perf_counter()
        try:
            scores = evaluate(self.task, self.task.val)
        except KeyboardInterrupt:
            self.save(result, phase_end)
            raise
        result.eval_seconds += time.perf_counter() - started
        return {f"val/{name}": value for name, value in scores.items()}

    def save(self, result: Trained, phase_end: int) -> None:
        """Write the checkpoint, where there is one, after a whole step."""
        if self.checkpoint:
            self.checkpoint.save(self._state(result, phase_end))

    def _step(self, batch: np.ndarray, epoch: int) -> None:
        """Take a step, on all its images at once or piece by piece with accumulated gradients."""
        task, optimizer = self.task, self.optimizer
        optimizer.zero_grad()
        losses = []
        for piece in np.array_split(batch, max(1, min(task.pieces, len(batch) // 2))):
            inputs = task.inputs.train(piece, task.seed, epoch)
            with task.execution.autocast():
                logits = self.forward(inputs)
            loss = task.targets.loss(logits, piece, task.seed, epoch, task.training)
            (loss * (len(piece) / len(batch))).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach() * len(piece))
        clip_gradients(optimizer.param_groups, task.training.gradient_clip)
        self.rate = max(group["lr"] for group in optimizer.param_groups)
        optimizer.step()
        self.schedule.step()
        self.losses.append(torch.stack(losses).sum() if len(losses) > 1 else losses[0])

    def _state(self, result: Trained, phase_end: int) -> dict[str, Any]:
        """Return all that decides the steps to come, as tensors and plain values."""
        device = torch.device(self.task.execution.device)
        return {
            "made_for": made_for(self.task),
            "pieces": self.task.pieces,
            "phase_end": phase_end,
            "result": {f.name: getattr(result, f.name) for f in fields(result)},
            "model": trained_state(self.task.model, self.task.plan),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "rate": self.rate,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on after the last step that was saved."""
        device = torch.device(self.task.execution.device)
        self.task.model.load_state_dict(saved["model"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.losses, self.rate = list(saved["losses"].to(device)), saved["rate"]
        torch.set_rng_state(saved["random"])
        if saved["random_cuda"] is not None:
            torch.cuda.set_rng_state(saved["random_cuda"], device)


def made_for(task: Task) -> list[Any]:
    """Return what a checkpoint must have been made for to be gone on from."""
    execution = task.execution
    images = [len(task.train), len(task.val)]
    return [
        str(torch.__version__),
        execution.device.partition(":")[0],
        execution.precision,
        list(execution.compiled),
        *images,
    ]


def _load(task: Task, checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    saved = checkpoint.load() if checkpoint else None
    return saved if saved and (saved["made_for"], saved["pieces"]) == (made_for(task), task.pieces) else None


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
    return task.targets.score(predict(task, indices), indices)


@torch.inference_mode()
def predict(task: Task, indices: np.ndarray) -> Tensor:
    """Return the answers for images `indices`, in eval mode: of classes, the logits (N, classes), float32."""
    task.model.eval()
    task.forward.eval()
    return torch.cat(
        [
            task.targets.answer(task.forward(task.inputs.evaluate(batch)), batch)
            for batch in batches(indices, task.inputs.eval_batch)
        ]
    )
