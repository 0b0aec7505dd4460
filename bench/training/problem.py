"""What a run trains on, what comes of it, and the questions that every way of training asks of both."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from bench.models.adapters import plain_tensors
from bench.models.factory import TransferModel
from bench.strategies.plan import TransferPlan
from bench.study.allowance import batches_per_epoch
from bench.study.metrics import METRICS
from bench.study.schema import Training
from bench.training.execution import Execution
from bench.training.inputs import Inputs, batches
from bench.training.targets.base import Targets

Row = dict[str, float]
PruningCallback = Callable[[Row], bool]  # from an epoch's row to whether the run goes on


class DivergedError(Exception):
    """The loss is not finite; the run stops with this as its reason."""


@dataclass(frozen=True, eq=False)
class Route:
    """How images reach the logits: as pixels through the model, or as stored features through its rest."""

    inputs: Inputs
    forward: nn.Module


@dataclass(frozen=True, eq=False)
class TrainingProblem:
    """All that a run trains on, and how.

    Args:
        model: the whole model, whose parameters are trained.
        forward: from `inputs` to logits: the model, or what stands behind its frozen prefix.
        targets: what is to be got right.
        val: images to choose the best evaluation by. None: training goes on to its end, which is kept.
        metric: the name of the metric that chooses the best evaluation.
        l2_strength: of a phase that is solved: the loss is the sum over images plus this / 2 times the
            squared norm of the weights.
        routes: for each phase, where more of the model is as it started than in the whole plan.
        micro_batches: in how many each batch is computed, for a device without room for all of it. The
            gradient is that of the whole batch, but BatchNorm takes its statistics from each micro-batch
            (Goyal et al. 2017, section 2.3).
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
    l2_strength: float = 1.0
    routes: tuple[Route, ...] = ()
    micro_batches: int = 1

    def in_phase(self, number: int) -> "TrainingProblem":
        """Return the problem as a phase sees it."""
        if not self.routes:
            return self
        route = self.routes[number]
        return replace(self, inputs=route.inputs, forward=route.forward)

    @property
    def labels(self) -> Tensor:
        """The labels of all images, where images have them."""
        return self.targets.labels

    @property
    def chooses(self) -> bool:
        """Whether there are images to choose the best evaluation by."""
        return len(self.val) > 0


@dataclass
class Trained:
    """What came of training: the curve, and the weights at its best evaluation, restored in the model.

    Args:
        curve: a row for each evaluation on val, with the optimisation steps taken until then.
        best_place: in the curve.
        stopped: whether it was ended from outside, and has no weights to restore.
    """

    curve: list[Row] = field(default_factory=list)
    best_place: int = 0
    best: Mapping[str, Tensor] = field(default_factory=dict)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    stopped: bool = False

    @property
    def best_row(self) -> Row:
        """The evaluation whose weights are restored."""
        return self.curve[self.best_place]

    @property
    def steps(self) -> int:
        """The optimisation steps taken until the last evaluation."""
        return int(self.curve[-1]["step"]) if self.curve else 0


def truncate(result: Trained | DivergedError, metric: str, callback: PruningCallback) -> Trained:
    """Return a training that went to its end as it would have been had `callback` been asked each time.

    Raises:
        DivergedError: if that is what came of it.
    """
    if isinstance(result, DivergedError):
        raise result
    for number, row in enumerate(result.curve, 1):
        if not callback(row):
            share = number / len(result.curve)
            curve = result.curve[:number]
            best = max(range(number), key=lambda place: _rank(curve[place], metric))
            return Trained(curve, best, {}, result.train_seconds * share, result.eval_seconds * share, True)
    return result


def epoch_order(problem: TrainingProblem, epoch: int) -> np.ndarray:
    """Return the training images in the order of an epoch: the same for every strategy of a seed."""
    order: np.ndarray = np.random.default_rng([problem.seed, epoch]).permutation(problem.train)
    return order


def next_batches(problem: TrainingProblem, first: int, count: int) -> list[tuple[int, np.ndarray]]:
    """Return the epoch and the training images of `count` steps from the step `first` on, counted from 0."""
    size = problem.training.batch_size
    per_epoch = batches_per_epoch(len(problem.train), size)
    found: list[tuple[int, np.ndarray]] = []
    for epoch in range(first // per_epoch, -(-(first + count) // per_epoch)):
        found += ((epoch, batch) for batch in batches(epoch_order(problem, epoch), size))
    return found[first % per_epoch :][:count]


def note_evaluation(problem: TrainingProblem, result: Trained, row: Row) -> None:
    """Add an evaluation to the curve, and keep the weights if it is the best so far, or nothing is chosen.

    Raises:
        DivergedError: if a value is not finite.
    """
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise DivergedError(f"{bad[0]} is not finite after step {row['step']:g}")
    result.curve.append(row)
    is_best = not (result.best and problem.chooses) or (
        _rank(row, problem.metric) > _rank(result.best_row, problem.metric)
    )
    if is_best:
        result.best_place = len(result.curve) - 1
        result.best = trained_state(problem.model, problem.plan)


def _rank(row: Row, metric: str) -> tuple[float, float]:
    """Return what the best evaluation has most of: the metric on val, then, among equals, the lower loss."""
    return METRICS[metric].sign * row[f"val/{metric}"], -row["val/loss"]


def trained_state(model: TransferModel, plan: TransferPlan) -> dict[str, Tensor]:
    """Return copies of all tensors that the plan lets change: parameters and running statistics."""
    trained = [stage for number, stage in enumerate(model.stages) if plan.is_trained(number)]
    names = {f"backbone.{name}" for stage in trained for name in stage.tensors}
    state = model.state_dict()
    return {n: t.detach().clone() for n, t in state.items() if n in names or n.startswith("head.")}


def plain_state(model: TransferModel, plan: TransferPlan) -> dict[str, Tensor]:
    """Return the same by the names of the architecture: what an adapter changes is in its layer's weights."""
    trained = [stage for number, stage in enumerate(model.stages) if plan.is_trained(number)]
    own = {name for stage in trained for name in stage.tensors}
    plain = plain_tensors(model.backbone, plan.adapter)
    backbone = {f"backbone.{n}": t for n, t in plain.items() if n in own or plan.adapter}
    head = {f"head.{n}": t for n, t in model.head.state_dict().items()}
    return {name: tensor.detach().clone() for name, tensor in (backbone | head).items()}


def evaluate(problem: TrainingProblem, indices: np.ndarray) -> dict[str, float]:
    """Return the scores on images `indices`, in eval mode; of no images there are none."""
    if not len(indices):
        return {}
    return problem.targets.score(predict(problem, indices), indices, (problem.metric,))


@torch.inference_mode()
def predict(problem: TrainingProblem, indices: np.ndarray) -> Tensor:
    """Return the predictions for images `indices`, in eval mode: of classes, logits (N, classes), float32."""
    problem.model.eval()
    problem.forward.eval()
    return torch.cat(
        [
            problem.targets.predictions(problem.forward(problem.inputs.evaluate(batch)), batch)
            for batch in batches(indices, problem.inputs.eval_batch)
        ]
    )
