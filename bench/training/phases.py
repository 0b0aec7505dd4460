"""Train runs as their strategy says: by gradient steps or by a solver, each alone or several as one."""

from collections.abc import Callable, Sequence

from bench.training.checkpoints import Checkpoint
from bench.training.linear_probe import solve
from bench.training.loop import train
from bench.training.parallel_heads import can_train_together, train_heads
from bench.training.problem import DivergedError, Row, Trained, TrainingProblem, truncate


def train_as_planned(
    problem: TrainingProblem,
    keep_going: Callable[[Row], bool] = lambda _row: True,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train as the strategy says; what is solved takes seconds and needs no checkpoint."""
    if problem.solver == "lbfgs":
        return truncate(solve([problem])[0], problem.metric, keep_going)
    return train(problem, keep_going, checkpoint)


def train_together(problems: Sequence[TrainingProblem]) -> Sequence[Trained | DivergedError] | None:
    """Train runs of one arm as one computation, or return None if they can't be."""
    if problems[0].solver == "lbfgs":
        return solve(problems)
    return train_heads(problems) if can_train_together(problems) else None
