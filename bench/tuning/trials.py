"""What a trial is, asked for and finished: plain values, without Optuna."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.core.runs import Status, Value

Report = Callable[[int, float], bool]  # (optimisation steps, the study's metric on val) to whether it goes on


@dataclass(frozen=True)
class Asked:
    """A trial to run: its number from 0, its hyperparameters, and where its evaluations are reported.

    Args:
        known: its result is known, and it is here only because the others of its group are trained with it.
    """

    number: int
    params: Mapping[str, Value]
    report: Report
    known: bool = False


@dataclass(frozen=True)
class FinishedTrial:
    """What came of a trial.

    Args:
        number: from 0.
        params: its hyperparameters.
        status: how it ended.
        score: the study's metric on val at the best evaluation; of a trial that is DONE.
        loss: on val, then: it decides between equal scores.
        reports: the study's metric on val by optimisation steps, in order.
        diverged: it FAILED for what it is: tried again it would fail again.
    """

    number: int
    params: Mapping[str, Value]
    status: Status
    score: float | None = None
    loss: float = 0.0
    reports: tuple[tuple[int, float], ...] = ()
    diverged: bool = False

    @property
    def failed_in_passing(self) -> bool:
        """Whether it failed for a reason that may be gone, such as a broken driver: it says nothing."""
        return self.status is Status.FAILED and not self.diverged
