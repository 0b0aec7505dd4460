"""What a run trains on: stored features where they are right, for each phase; a check measures nothing."""

import dataclasses
import logging

import pytest
import torch

from bench.core.errors import InputError
from bench.models.factory import TransferModel
from bench.training import compilation, precision
from bench.training.cached_features import Features
from bench.training.check import try_step
from bench.training.feature_store import FeatureStore
from bench.training.linear_probe import solve
from bench.training.phases import train_as_planned
from bench.training.problem import predict
from tests.support.setups import PARTS, setup_for, spec_for
from tests.test_contract import dataset, random_weights  # noqa: F401 - fixtures


@pytest.fixture
def make(random_weights, dataset, tmp_path):  # noqa: F811
    def setup(model="timm/resnet10t", **settings):
        made = setup_for(random_weights(model), dataset, **settings)
        made.features = FeatureStore(tmp_path)
        return made

    return setup


def stored(problem):
    return [isinstance(route.inputs, Features) for route in problem.routes]


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("full", {}, [False]),
        ("scratch", {}, [False]),
        ("feature_extractor", {}, [True]),
        ("partial", {}, [True]),
        ("surgical", {"depth": 0.7}, [True]),
        ("surgical", {"depth": 0.0}, [False]),
        ("head_first", {}, [True, False]),
        ("lp_ft", {}, [True, False]),
        ("norm_only", {}, [False]),
        ("earlier_features", {}, [True]),
    ],
)
def test_features_are_stored_for_each_phase_whose_prefix_is_as_it_started(make, name, params, expected):
    problem = make().problem(spec_for(name, **params), PARTS)
    assert stored(problem) == expected
    assert isinstance(problem.inputs, Features) == expected[-1]


@pytest.mark.parametrize("model", ["timm/resnet10t", "timm/vit_tiny_patch16_224"])
@pytest.mark.parametrize("name", ["head_first", "lp_ft", "surgical", "earlier_features"])
def test_a_phase_on_stored_features_gives_what_it_gives_on_images(make, name, model):
    setup = make(model)
    fast, slow = (setup.problem(spec_for(name), PARTS) for _ in range(2))
    slow = dataclasses.replace(slow, inputs=setup.images, forward=slow.model, routes=())
    quick, through = train_as_planned(fast), train_as_planned(slow)
    for one, other in zip(quick.curve, through.curve, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-2, abs=1e-3)
        assert one["val/loss"] == pytest.approx(other["val/loss"], rel=1e-2, abs=1e-3)
    assert torch.allclose(predict(fast, PARTS.val), predict(slow, PARTS.val), rtol=0.02, atol=0.02)


def test_features_of_an_early_phase_are_those_of_the_pretrained_model(make):
    """Asked for after the model has moved on, they must not come from where it has moved to."""
    setup = make()
    problem = setup.problem(spec_for("head_first"), PARTS)
    with torch.no_grad():
        expected = setup.frozen.features(setup.images.evaluate(PARTS.test))
    train_as_planned(problem)
    features = problem.routes[0].inputs
    assert features.prepare_evaluation(PARTS.test)
    assert torch.allclose(features.evaluate(PARTS.test), expected, atol=1e-5)


def test_the_head_that_full_fine_tuning_starts_from_is_the_probe(make, monkeypatch):
    setup = make()
    probe = setup.problem(spec_for("linear_probe", l2_strength=2.0), PARTS)
    solve([probe])
    seen = {}

    class StoppedError(Exception):
        pass

    def at_the_first_step(model, _modes):
        seen.update({name: value.clone() for name, value in model.head.state_dict().items()})
        raise StoppedError

    problem = setup.problem(spec_for("lp_ft", l2_strength=2.0), PARTS)
    monkeypatch.setattr(TransferModel, "set_training", at_the_first_step)
    with pytest.raises(StoppedError):
        train_as_planned(problem)
    assert all(torch.equal(seen[name], value) for name, value in probe.model.head.state_dict().items())


def test_what_was_tried_once_is_solved_without_views(make):
    """A solver takes the centre views only: new views in every epoch are no reason not to store those."""
    assert stored(make(views=None).problem(spec_for("linear_probe"), PARTS)) == [True]
    assert stored(make(views=None).problem(spec_for("feature_extractor"), PARTS)) == [False]


def test_it_is_said_once_that_a_prefix_cannot_be_resumed(make, caplog, monkeypatch):
    monkeypatch.setattr(TransferModel, "suffix", lambda *_: None)
    setup = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert stored(setup.problem(spec_for("partial"), PARTS)) == [False]
    assert caplog.text.count("can't be resumed behind stage") == 1


def test_a_check_measures_and_compiles_nothing(make, monkeypatch):
    def never(*_args, **_kwargs):
        raise AssertionError("a check measures nothing")

    monkeypatch.setattr(precision, "measured_step", never)
    monkeypatch.setattr(compilation, "time_step", never)
    monkeypatch.setattr(torch, "compile", never)
    monkeypatch.setattr(precision, "has_fast_bf16", lambda _device: True)
    setup = make(compile="always")
    for name in ("full", "partial", "lp_ft"):
        matrix, parameters = try_step(setup, spec_for(name).arm, PARTS)
        assert matrix.startswith("start: pretrained")
        assert parameters > 0
    assert setup.execution.precision == "fp32"
    assert [line.partition(" ")[0] for line in setup.left_to_measure()] == ["precision:", "compiling"]
    with pytest.raises(AssertionError, match="measures nothing"):
        make(measures=True).execution  # noqa: B018 - a property


def test_a_check_leaves_no_features_behind(make, tmp_path):
    setup = make()
    try_step(setup, spec_for("feature_extractor").arm, PARTS)
    assert not list(tmp_path.glob("*.f32"))
    assert setup.features.folder == tmp_path


def test_a_check_names_the_strategy_that_fails(make, monkeypatch):
    def refuses(*_args):
        raise ValueError("no such thing\nmore")

    setup = make()
    monkeypatch.setattr(type(setup), "problem", refuses)
    with pytest.raises(InputError, match=r"^full: no such thing$"):
        try_step(setup, spec_for("full").arm, PARTS)
