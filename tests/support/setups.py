"""A setup for training a tiny study, as the experiment makes one."""

import numpy as np

from bench.core.runs import Arm, Purpose, RunSpec
from bench.data.dataset import Split
from bench.models.weights import locate
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Study
from bench.training.setup import Compute, TrainingSetup

PARTS = Split(np.arange(12), np.arange(12, 18), np.arange(18, 24))


def setup_for(source, dataset, *, views=2, epochs=4, measures=False, **training):
    """The setup of a study on 24 images of 32 pixels."""
    study = Study(
        name="tiny",
        question="?",
        source=source.model_copy(update={"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        target={"data": "noise", "image_size": 32, "augmentation": {"views": views}},
        training={"epochs": epochs, "batch_size": 6, **training},
    )
    return TrainingSetup(study, dataset, locate(source), Compute("cpu", measures=measures))


def spec_for(name, seed=3, **params):
    """A trial of a strategy with its default hyperparameters, but for those that are given."""
    return RunSpec(Arm("tiny", name, {}), {**STRATEGIES[name].defaults, **params}, seed, Purpose.TRIAL)
