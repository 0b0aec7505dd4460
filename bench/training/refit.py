"""Train once more what was chosen, on more images: those that it was chosen by have done their work.

Nothing is left to choose the best evaluation by, so the number of steps is given: that of the checkpoints
which earlier runs chose (Goodfellow, Bengio and Courville 2016, "Deep learning", section 7.8, algorithm 7.2).
"""

from dataclasses import replace

import numpy as np

from bench.core.runs import RunSpec
from bench.data.dataset import Split
from bench.study.schema import with_changes
from bench.training.phases import train_as_planned
from bench.training.problem import Trained, TrainingProblem
from bench.training.setup import TrainingSetup


def refit(setup: TrainingSetup, spec: RunSpec, indices: np.ndarray, steps: int) -> Trained:
    """Train a run on other images, for a number of steps and to their end; see `problem_of_refit`.

    Returns:
        What came of it; its `best` are the weights at the end.

    Raises:
        DivergedError: if a loss is not finite.
    """
    return train_as_planned(problem_of_refit(setup, spec, indices, steps))


def problem_of_refit(setup: TrainingSetup, spec: RunSpec, indices: np.ndarray, steps: int) -> TrainingProblem:
    """Return what a run trains on once more.

    Args:
        setup: of the run's study.
        spec: strategy, hyperparameters and seed.
        indices: int64, shape (n,): the images to train on.
        steps: of optimisation, in all phases together; phases that are solved take none.
    """
    none = np.array([], dtype=np.int64)
    problem = setup.problem(spec, Split(train=np.sort(indices), val=none, test=none))
    training = with_changes(problem.training, steps=max(1, steps), epochs=None)
    return replace(problem, training=training)
