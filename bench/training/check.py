"""Try a strategy before it is run: build its model, train it on a few images, and say what it trains."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.core.errors import InputError
from bench.core.runs import Arm, Purpose, RunSpec
from bench.data.dataset import Split
from bench.data.splits import ordered
from bench.strategies.registry import tuned_strategy
from bench.training.feature_store import FeatureStore
from bench.training.phases import train_as_planned
from bench.training.problem import DivergedError
from bench.training.setup import TrainingSetup

MOST_IMAGES = 8  # trained on and evaluated; a solver needs one of each class


def try_step(setup: TrainingSetup, arm: Arm, parts: Split) -> tuple[str, int]:
    """Train an arm for one step of a small batch; return its matrix and how many parameters it trains.

    What it stores is removed again.

    Raises:
        InputError: if that fails.
    """
    strategy = tuned_strategy(arm.strategy, setup.study)
    params = strategy.defaults
    count = min(setup.study.training.batch_size, MOST_IMAGES)
    if strategy.plan(len(setup.stages), params).needs_linear_head:
        count = max(count, len(setup.dataset.classes))
    batch = np.sort(ordered(parts.train, setup.dataset.labels, "proportional", (0,))[:count])
    few = Split(batch, parts.val[:MOST_IMAGES], parts.test[:1])
    kept = setup.features
    with tempfile.TemporaryDirectory() as folder:
        setup.features = FeatureStore(Path(folder))
        setup.forget_features()  # they would write to the folder of the arm before
        try:
            problem = setup.problem(RunSpec(arm, params, 0, Purpose.TRIAL), few)
            once = problem.training.model_copy(update={"steps": None, "epochs": len(problem.plan.phases)})
            train_as_planned(replace(problem, training=once))
        except (DivergedError, RuntimeError, ValueError) as error:
            raise InputError(str(error).splitlines()[0][:200], arm.strategy) from error
        finally:
            setup.features = kept
            setup.forget_features()
    trained = sum(p.numel() for p in problem.model.parameters() if p.requires_grad)
    return setup.plan_text(arm, params), trained
