"""Weights of classes in the loss: what they are, and that they are asked for in one place."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.core.errors import InputError
from bench.core.runs import Purpose, RunSpec
from bench.experiment.plan import plan
from bench.strategies.registry import CLASS_WEIGHTS, STRATEGIES, tuned_strategy
from bench.study.loading import load
from bench.study.schema import Training
from bench.training.check import try_step
from bench.training.setup import Compute, TrainingSetup
from bench.training.targets.classification import Classes
from tests.support.tiny_study import write_tiny_study

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
EVERY = np.arange(100)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The name of a study on little coloured images, found from the current folder."""
    monkeypatch.chdir(tmp_path)
    write_tiny_study(tmp_path)
    return "tiny.yaml"


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_they_go_by_the_inverse_number_of_images_and_their_mean_over_these_is_one(power):
    weights = Classes(LABELS).weighted(EVERY, power).class_weights
    assert (weights[2] / weights[0]).item() == pytest.approx(6**power)
    assert (weights[1] / weights[0]).item() == pytest.approx(2**power)
    assert weights[LABELS].mean().item() == pytest.approx(1)


def test_a_class_that_is_not_trained_on_has_a_weight_too():
    assert Classes(LABELS).weighted(np.arange(90), 1.0).class_weights.isfinite().all()


def test_the_loss_is_the_weighted_cross_entropy_of_torch():
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    targets, training = Classes(LABELS).weighted(EVERY, 1.0), Training(label_smoothing=0.1)
    each = functional.cross_entropy(logits, LABELS, label_smoothing=0.1, reduction="none")
    weights = 100 / 3 / torch.tensor([60.0, 30.0, 10.0])  # scikit-learn's "balanced"
    expected = (weights[LABELS] * each).mean().item()
    assert targets.loss(logits, EVERY, 0, 0, training).item() == pytest.approx(expected)
    plain = functional.cross_entropy(logits, LABELS, label_smoothing=0.1)
    assert torch.equal(Classes(LABELS).loss(logits, EVERY, 0, 0, training), plain)


def test_a_run_is_trained_with_the_weights_of_its_own_training_images(tiny):
    laid_out = plan(load(tiny, ["training.class_weights=0.5", "training.epochs=1"]))
    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu", 1))
    arm = laid_out.arms[0]
    spec = RunSpec(arm, STRATEGIES[arm.strategy].defaults, 1, Purpose.FINAL)
    problem = setup.problem(spec, laid_out.splits[1])
    expected = setup.targets.weighted(laid_out.splits[1].train, 0.5).class_weights
    assert torch.equal(problem.targets.class_weights, expected)


def test_where_they_are_tuned_every_strategy_chooses_their_power(tiny):
    laid_out = plan(load(tiny, ["training.class_weights=tuned", "training.epochs=1"]))
    study, arm = laid_out.study, laid_out.arms[0]
    strategy = tuned_strategy(arm.strategy, study)
    assert strategy.search_space == {**STRATEGIES[arm.strategy].search_space, "class_weights": CLASS_WEIGHTS}
    assert tuned_strategy(arm.strategy, load(tiny)) is STRATEGIES[arm.strategy]
    setup = TrainingSetup(study, laid_out.dataset, laid_out.origin, Compute("cpu", 1))
    for power in (0.0, 0.5):
        params = {**strategy.defaults, "class_weights": power}
        problem = setup.problem(RunSpec(arm, params, 1, Purpose.TRIAL), laid_out.splits[1])
        expected = setup.targets.weighted(laid_out.splits[1].train, power).class_weights
        assert torch.equal(problem.targets.class_weights, expected)
    assert try_step(setup, arm, laid_out.splits[1])


def test_they_are_part_of_a_run_s_key_and_none_is_not(tiny):
    def key(*settings):
        return plan(load(tiny, settings)).key

    def weighted(value):
        return key(f"training.class_weights={value}")

    assert key() == weighted("none") == weighted(0)
    assert weighted("balanced") == weighted(1) != weighted(0.5) != key()
    assert "class_weights" not in plan(load(tiny)).arms[0].settings["training"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("class_weights=even", "training.class_weights: neither none, balanced, tuned, nor a power"),
        ("class_weights=-1", "training.class_weights: must be more than 0"),
        ("class_weights=[1, 2]", "training.class_weights: must be a number"),
    ],
)
def test_what_they_can_not_be_is_one_line(setting, said):
    with pytest.raises(InputError, match=said):
        load("small_similar", [f"training.{setting}"])


def test_other_tasks_have_none():
    with pytest.raises(InputError, match=r"training\.class_weights is for task: classification"):
        load("segmentation_packaged", ["training.class_weights=balanced"])
