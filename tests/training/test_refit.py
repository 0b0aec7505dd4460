"""A refit takes the steps that it is given, on the images that it is given, and keeps the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.data.dataset import Split
from bench.training.phases import train_as_planned
from bench.training.refit import refit
from tests.support.setups import PARTS, setup_for, spec_for
from tests.test_contract import dataset, random_weights  # noqa: F401 - fixtures

BOTH = np.concatenate([PARTS.train, PARTS.val])
NONE = np.array([], dtype=np.int64)


@pytest.fixture
def setup(random_weights, dataset):  # noqa: F811
    return setup_for(random_weights("timm/resnet10t"), dataset, epochs=4)


@pytest.mark.parametrize("strategy", ["full", "head_first", "feature_extractor"])
def test_it_takes_its_steps_and_keeps_the_last_weights(setup, strategy):
    trained = refit(setup, spec_for(strategy), BOTH, 7)
    assert trained.steps == 7
    assert trained.best_place == len(trained.curve) - 1
    assert not any(name.startswith("val/") for row in trained.curve for name in row)
    assert trained.curve[-1]["learning_rate"] < max(row["learning_rate"] for row in trained.curve)


def test_its_end_is_where_a_run_is_that_looks_at_val_on_the_way(setup):
    """Only what is chosen differs: with val that can't be beaten later, the last weights are another's."""
    spec, parts = spec_for("full"), Split(BOTH, NONE, NONE)
    problem = setup.problem(spec, parts)
    fixed = problem.training.model_copy(update={"steps": 6, "epochs": None, "schedule": "cosine"})
    looked = replace(problem, val=PARTS.test, training=fixed)
    states = []

    def keep(_row):
        states.append({name: tensor.clone() for name, tensor in looked.model.state_dict().items()})
        return True

    train_as_planned(looked, keep)
    blind = setup.problem(spec, parts)
    best = train_as_planned(replace(blind, training=fixed)).best
    assert all(torch.equal(states[-1][name], tensor) for name, tensor in best.items())


def test_a_solved_head_is_solved_on_all_images(setup):
    few, many = (refit(setup, spec_for("linear_probe"), indices, 1).best for indices in (PARTS.train, BOTH))
    assert not torch.equal(few["head.weight"], many["head.weight"])
    assert refit(setup, spec_for("linear_probe"), BOTH, 1).curve[0].keys() == {
        *("step", "learning_rate", "train/loss")
    }
