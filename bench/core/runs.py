"""What a run is and what came of it: `Arm`, `RunSpec`, `RunResult`, and the keys that identify them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.core.hashing import (
    digest,
)
from bench.core.versions import (
    PROTOCOL,
)

if TYPE_CHECKING:
    import numpy as np

Value = float | int | str
ALSO = "also/"  # before the name of a further test set, in metrics and files
SEES_TEST = ("test/", ALSO)


@dataclass(frozen=True)
class Arm:
    """One strategy of one study.

    Args:
        study: the study's name.
        strategy: the strategy's name.
        settings: all that decides the numbers but hyperparameters and seed: data digest, split, source
            weights, head, training, protocol. JSON types only.
    """

    study: str
    strategy: str
    settings: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """SHA-256 over the strategy and its settings; the study's name does not move a number."""
        return digest({"protocol": PROTOCOL, "strategy": self.strategy, "settings": self.settings})


class Purpose(Enum):
    """Why a run is made: to choose hyperparameters (never sees test), or to be reported."""

    TRIAL = "trial"
    FINAL = "final"


@dataclass(frozen=True)
class RunSpec:
    """An arm with hyperparameters and a seed. Test is read in final runs only."""

    arm: Arm
    params: Mapping[str, Value]
    seed: int
    purpose: Purpose

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of all that moves a number."""
        return digest(
            {"arm": self.arm.key, "params": self.params, "seed": self.seed, "purpose": self.purpose.value}
        )


class Status(Enum):
    """How a run ended."""

    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        metrics: `split/metric` to value, such as `val/accuracy`; at the best evaluation on val.
        curve: a row for each evaluation on val: `step`, `train/loss`, `val/loss`, `val/accuracy`, ...
        best_step, steps: optimisation steps until the best evaluation, and in all.
        train_seconds, eval_seconds: wall time of training and of evaluation, apart; logging is in neither.
        cached_seconds: of these, all but what was spent on frozen features: the cost with features at hand.
        feature_seconds: what computing its frozen features takes, whether this run did or found them.
        environment: versions, device, precision and threads that the numbers were made with.
        error: one line, for a failed run only.
        diverged: it failed for what it is: tried again it would fail again.

    Raises:
        ValueError: for a state that can't be: DONE with a value that is not finite, FAILED without a reason.
    """

    spec: RunSpec
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Mapping[str, float], ...] = ()
    best_step: int = 0
    steps: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    trainable_parameters: int = 0
    peak_memory_bytes: int = 0
    cached_seconds: float = 0.0
    feature_seconds: float = 0.0
    environment: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    diverged: bool = False

    def __post_init__(self) -> None:
        if self.status is Status.DONE:
            bad = [name for name, value in self.metrics.items() if not math.isfinite(value)]
            if bad or not self.metrics:
                raise ValueError(f"a DONE run needs finite metrics; not finite: {bad or 'none given'}")
        if (self.status is Status.FAILED) != bool(self.error):
            raise ValueError(
                f"a run has an error exactly if it FAILED; {self.status} with error {self.error!r}"
            )
        if self.spec.purpose is Purpose.TRIAL and any(name.startswith(SEES_TEST) for name in self.metrics):
            raise ValueError("a trial never sees test")


def derive_seed(seed: int, purpose: str) -> int:
    """Return an independent 60-bit seed for one purpose of a run's seed."""
    return int(digest([seed, purpose])[:15], 16)


@dataclass(frozen=True, eq=False)
class Scores:
    """What a run ranks images by, class by class: higher where it is surer that an image shows the class.

    Args:
        images: the names of N images.
        classes: the names of K classes.
        values: float32, shape (N, K).
    """

    images: Sequence[str]
    classes: Sequence[str]
    values: "np.ndarray"
