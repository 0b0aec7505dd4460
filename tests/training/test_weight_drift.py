"""How far stages moved: answers by hand, what CKA must not see, and that measuring moves nothing."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.runs import Status
from bench.models.factory import build
from bench.models.stages import Stage
from bench.strategies.plan import Phase, TransferPlan
from bench.study.schema import Head, Source
from bench.tracking import frames
from bench.tracking.frames import FoundRun
from bench.training.weight_drift import (
    DriftReference,
    linear_cka,
    pooled,
    relative_change,
    stage_outputs,
)

SHAPES = st.tuples(st.integers(3, 12), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))


def features(shape):
    """Two sets of features with more and fewer images than features: both ways of computing."""
    n, p, q, seed = shape
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, p)) + 3, draw.normal(size=(n, q))


def by_definition(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the centring matrix written out."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, other = x @ x.T, y @ y.T

    def hsic(a, b):
        return np.trace(a @ centring @ b @ centring) / (n - 1) ** 2

    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


@given(SHAPES)
def test_cka_is_that_of_its_definition(shape):
    x, y = features(shape)
    assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(by_definition(x, y), abs=1e-9)


@given(SHAPES)
def test_cka_does_not_see_rotation_scale_and_shift(shape):
    x, y = features(shape)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(y.shape[1],) * 2))
    turned = torch.tensor(-2.5 * y @ rotation + 7)
    assert linear_cka(torch.tensor(x), turned) == pytest.approx(
        linear_cka(torch.tensor(x), torch.tensor(y)), abs=1e-9
    )
    assert linear_cka(torch.tensor(y), turned) == pytest.approx(1)


def test_cka_by_hand():
    x = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    assert linear_cka(x, torch.tensor([[0.0], [0.0], [1.0], [-1.0]])) == 0
    # both columns of y together, one of which is x: 1 * 1 / (1 * sqrt(2)) by the formula
    assert linear_cka(x, torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])) == pytest.approx(2**-0.5)
    assert np.isnan(linear_cka(x, torch.ones(4, 3)))


def test_relative_change_by_hand():
    stage = Stage("stem", ("conv",), frozenset({"conv.weight", "conv.bias", "bn.running_mean"}))
    before = {"conv.weight": torch.tensor([3.0, 0.0]), "conv.bias": torch.tensor([4.0])}
    after = {"conv.weight": torch.tensor([3.0, 2.0]), "conv.bias": torch.tensor([4.0])}
    others = {"head.weight": torch.tensor([1.0])}
    assert relative_change(before | others, after | others, stage) == pytest.approx(2 / 5)
    assert relative_change(before, before, stage) == 0


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 3, 3, 5), (2, 7, 5), (2, 5)])
def test_features_are_averaged_over_positions(shape):
    assert pooled(torch.ones(shape)).shape == (2, 5)


@pytest.fixture(scope="module")
def before():
    torch.manual_seed(0)
    return build(Source(model="timm/resnet10t", weights=WEIGHTS), Head(), 3, 32, "he", 0)


WEIGHTS = "default"  # never read: a model that starts at He's weights stands for the pretrained one


def plan(before, *trained, start="pretrained"):
    return TransferPlan(start, (Phase(1, (*(float(n in trained) for n in range(len(before.stages))), 1.0)),))


def moved_copy(before, depth):
    """The same model with the parameters of one stage half as large again."""
    after = copy.deepcopy(before)
    with torch.no_grad():
        for name, parameter in after.backbone.named_parameters():
            if name in after.stages[depth].tensors:
                parameter.mul_(1.5)
    return after


@pytest.fixture(scope="module")
def yardstick(before):
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return DriftReference(before, lambda: images.split(8))


def test_a_model_that_did_not_move(before, yardstick):
    found = yardstick.measure(before, plan(before, *range(len(before.stages))))
    assert [found[name] for name in found if name.endswith("change")] == [0] * len(before.stages)
    assert [found[name] for name in found if name.endswith("cka")] == pytest.approx([1] * len(before.stages))
    assert list(found)[:2] == ["stage/0-stem/cka", "stage/0-stem/change"]


def test_what_is_in_front_of_the_first_trained_stage_is_not_computed(before):
    yardstick = DriftReference(before, lambda: pytest.fail("nothing is to be computed"))
    found = yardstick.measure(before, plan(before))
    assert set(found.values()) == {0.0, 1.0}
    assert len(found) == 2 * len(before.stages)


def test_a_stage_that_moved_changes_what_stands_behind_it(before, yardstick):
    last = len(before.stages) - 1
    found = yardstick.measure(moved_copy(before, 2), plan(before, 2))
    changes = [found[f"stage/{d}-{before.stages[d].name}/change"] for d in range(last + 1)]
    assert changes == [0, 0, pytest.approx(0.5, abs=1e-6), *[0] * (last - 2)]
    alike = [found[f"stage/{d}-{before.stages[d].name}/cka"] for d in range(last + 1)]
    assert alike[:2] == [1, 1]
    assert all(0 < value < 1 - 1e-6 for value in alike[2:])


def test_from_scratch_there_is_no_change_but_a_likeness(before, yardstick):
    other = build(Source(model="timm/resnet10t", weights=WEIGHTS), Head(), 3, 32, "he", 5)
    every = range(len(before.stages))
    found = yardstick.measure(other, plan(before, *every, start="he"))
    assert len(found) == len(before.stages)
    assert all(name.endswith("cka") and 0 < value < 1 for name, value in found.items())


def test_measuring_leaves_modes_weights_and_random_numbers_alone(before):
    before.set_training([0.0, *[1.0] * len(before.stages)])
    modes = [module.training for module in before.modules()]
    state = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    random = torch.random.get_rng_state()
    stage_outputs(before, [torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))])
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in before.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.state_dict().items())
    before.eval()


def test_they_come_back_as_a_table():
    metrics = {
        "stage/0-stem/change": 0.0,
        "stage/0-stem/cka": 1.0,
        "stage/1-stage1/cka": 0.5,
        "val/loss": 1.0,
    }
    tags = {"strategy": "full", "seed": "3"}
    table = frames.stages([FoundRun("r", "k", Status.DONE, metrics, {}, tags)])
    assert list(table) == ["strategy", "seed", "stage", "depth", "change", "cka"]
    assert table.to_numpy().tolist()[0] == ["full", 3, "stem", 0, 0.0, 1.0]
    assert table.iloc[1].isna().to_dict()["change"]
    assert frames.stages([]).empty
