"""Train runs as their plan says: by gradient steps or by a solver, each alone or several as one."""

import logging
from collections.abc import Sequence

from bench.system.notices import warn_once
from bench.training.checkpoints import CheckpointFile
from bench.training.linear_probe import solve
from bench.training.loop import train
from bench.training.parallel_heads import can_train_together, train_heads
from bench.training.problem import (
    DivergedError,
    PruningCallback,
    Trained,
    TrainingProblem,
    plain_state,
    truncate,
)

log = logging.getLogger(__name__)


def train_as_planned(
    problem: TrainingProblem,
    callback: PruningCallback = lambda _row: True,
    file: CheckpointFile | None = None,
) -> Trained:
    """Train through all phases of the plan; what is only solved takes seconds and needs no checkpoint.

    The best weights are given by the names of the architecture, without an adapter.
    """
    if problem.plan.is_solved:
        return truncate(solve([problem])[0], problem.metric, callback)
    trained = train(problem, callback, file)
    if problem.plan.adapter and not trained.stopped:
        trained.best = plain_state(problem.model, problem.plan)
    return trained


def train_together(problems: Sequence[TrainingProblem]) -> Sequence[Trained | DivergedError] | None:
    """Train runs of one arm as one computation, or return None if they can't be."""
    if all(problem.plan.is_solved for problem in problems):
        return solve(problems)
    if can_train_together(problems):
        return train_heads(problems)
    if all(problem.plan.trains_only_head for problem in problems):
        reason = "they are not linear, or their features are not stored"
        warn_once(log, f"heads are not trained together but one by one: {reason}")
    return None
