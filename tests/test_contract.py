"""Every strategy on every kind of architecture keeps what its record promises."""

import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.data.dataset import UNASSIGNED, Dataset, Split
from bench.models.factory import build, statistics, with_adapter, with_head
from bench.models.libraries import LIBRARIES
from bench.strategies.base import Strategy
from bench.strategies.plan import Adapter, Phase, TransferPlan
from bench.strategies.registry import STRATEGIES
from bench.study.schema import (
    Augmentation,
    Head,
    Source,
    Target,
    Training,
)
from bench.training.cached_features import Features
from bench.training.execution import Execution
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images
from bench.training.loop import train
from bench.training.optimizers import build_optimizer, freeze, trainable_groups
from bench.training.phases import train_as_planned
from bench.training.problem import TrainingProblem, predict
from bench.training.targets.classification import Classes

MODELS = (
    "timm/tf_efficientnet_lite0",
    "timm/resnet10t",
    "timm/convnext_atto",
    "timm/vit_tiny_patch16_224",
    "timm/mobilenetv3_small_050",
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    pytest.param("torchvision/densenet121", marks=pytest.mark.slow),
    pytest.param("torchvision/vgg11_bn", marks=pytest.mark.slow),  # 129 million parameters
)
SIDE, CLASSES = 32, 3
CPU = Execution("cpu", "fp32")


def two_phases(stages, params):
    head_only = Phase(0.5, (0.0,) * stages + (1.0,))
    return (head_only, Phase(0.5, (0.0,) + (0.1,) * (stages - 1) + (1.0,)))


TWO_PHASE = Strategy(
    "two_phase",
    "head first, then all but the stem",
    "pretrained",
    two_phases,
    STRATEGIES["full"].learning_rate,
    {},
)
ALL = [*STRATEGIES.values(), TWO_PHASE]


@pytest.fixture(scope="session")
def dataset():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % CLASSES
    images = rng.integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    images[labels == 1, :, :, 0] //= 4
    return Dataset(
        "noise",
        ("a", "b", "c"),
        images,
        labels,
        np.full(24, UNASSIGNED, np.int8),
        tuple(map(str, range(24))),
        "d" * 64,
    )


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A file of weights for each model: the library's own random start, standing for pretrained ones."""
    folder = tmp_path_factory.mktemp("weights")

    def source(name):
        path = folder / f"{name.replace('/', '_')}.pth"
        if not path.exists():
            torch.manual_seed(99)
            library, _, model = name.partition("/")
            made = LIBRARIES[library].create(model, SIDE, False)
            for module in made.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.running_mean.normal_(std=0.1)
            torch.save(made.state_dict(), path)
        return Source(model=name, weights=str(path))

    return source


def problem_for(strategy, source, dataset, epochs=2, store=None, head="linear"):
    settings = Head(kind=head, hidden=8)
    model = build(source, settings, CLASSES, SIDE, strategy.start, seed=5)
    plan = strategy.plan(len(model.stages), strategy.defaults)
    if plan.readout is not None:
        model = with_head(model, settings, CLASSES, SIDE, 5, readout=plan.readout)
    if plan.adapter:
        model = with_adapter(model, plan.adapter, 5)
    target = Target(data="noise", image_size=SIDE, augmentation=Augmentation(views=2))
    mean, std = statistics(source.model_copy(update={"mean": (0.5,) * 3, "std": (0.5,) * 3}))
    inputs = images = Images(dataset, target, mean, std, "cpu")
    forward = model
    parts = Split(np.arange(12), np.arange(12, 18), np.arange(18, 24))
    if store and plan.frozen_prefix:
        forward = model.suffix(plan.frozen_prefix, images.evaluate(parts.train[:2]))
        if forward is None:
            pytest.skip("this model is run through its prefix")
        inputs = Features(images, model.prefix(plan.frozen_prefix), {"model": source.model}, store)
        assert inputs.prepare_training(parts.train)
        assert inputs.prepare_evaluation(parts.val)
    targets = Classes(torch.from_numpy(dataset.labels))
    training = Training(epochs=epochs, batch_size=6)
    return TrainingProblem(
        model, forward, plan, inputs, targets, parts.train, parts.val, training, 1e-3, 0.01, 3, CPU
    )


def needed(strategy):
    """The strategy, where what it needs is installed."""
    marks = [
        pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs the extra {module}")
        for module in strategy.requires
    ]
    return pytest.param(strategy, marks=marks, id=strategy.name)


def promised(problem, number):
    """The parameters of a stage that its strategy trains, by their names in the whole model."""
    plan, stage = problem.plan, problem.model.stages[number]
    names = {name for name, _ in problem.model.backbone.named_parameters() if name in stage.tensors}
    norms = {name for name, m in problem.model.backbone.named_modules() if "Norm" in type(m).__name__}
    chosen = {
        "all": names,
        "norm": {name for name in names if name.rpartition(".")[0] in norms},
        "bias": {name for name in names if name.endswith("bias")},
        "adapter": {name for name in names if "lora_" in name},
    }
    return {f"backbone.{name}" for name in chosen[plan.parameters]} if plan.is_trained(number) else set()


def train_and_check_what_moves(problem):
    """What is frozen is the same to the bit, running statistics too; the rest and the head have moved."""
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    last = {}

    def keep_last(row):
        last.update({key: value.clone() for key, value in problem.model.state_dict().items()})
        return True

    train_as_planned(problem, keep_last)
    buffers = {f"backbone.{name}" for name, _ in problem.model.backbone.named_buffers()}
    for number, stage in enumerate(problem.model.stages):
        names = {f"backbone.{tensor}" for tensor in stage.tensors}
        moved = {key for key in names if not torch.equal(before[key], last[key])}
        trained = promised(problem, number)
        assert moved - buffers <= trained, stage.name
        assert bool(moved - buffers) == bool(trained), stage.name
        if trained and problem.plan.parameters == "all":
            assert any(key.endswith("weight") for key in moved), stage.name
        statistics_of = {key for key in names & buffers if key.endswith("running_mean")}
        follows = problem.plan.is_trained(number) and problem.plan.parameters != "adapter"
        assert bool(moved & buffers) == bool(follows and statistics_of), stage.name
    head = [key for key in before if key.startswith("head.") and key.endswith("weight")]
    assert head
    assert all(not torch.equal(before[key], last[key]) for key in head)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", [needed(strategy) for strategy in ALL])
def test_frozen_stages_are_bit_identical_and_trained_ones_move(strategy, name, random_weights, dataset):
    train_and_check_what_moves(problem_for(strategy, random_weights(name), dataset))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", [needed(strategy) for strategy in ALL])
def test_every_trained_tensor_is_in_one_group_at_the_rate_of_the_matrix(
    strategy, name, random_weights, dataset
):
    problem = problem_for(strategy, random_weights(name), dataset)
    stage_of = {f"backbone.{t}": n for n, stage in enumerate(problem.model.stages) for t in stage.tensors}
    chosen = set().union(*(promised(problem, number) for number in range(problem.plan.stages)))
    for phase in problem.plan.phases:
        multipliers = phase.multipliers
        freeze(problem.model, multipliers, problem.plan.parameters)
        optimizer = build_optimizer(problem.model, multipliers, 0.01, 0.1, Training())
        placed = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in placed, "a tensor is in two groups"
                placed[id(parameter)] = group
        for key, parameter in problem.model.named_parameters():
            multiplier = multipliers[stage_of.get(key, -1)] * (key in chosen or key.startswith("head."))
            assert parameter.requires_grad == (multiplier > 0)
            assert (id(parameter) in placed) == (multiplier > 0), key
            if multiplier:
                assert placed[id(parameter)]["lr"] == pytest.approx(0.01 * multiplier)
                decayed = parameter.ndim > 1 and not key.endswith("bias")
                assert placed[id(parameter)]["weight_decay"] == (0.1 if decayed else 0.0), key


@pytest.mark.parametrize("name", MODELS)
def test_scratch_shares_no_value_with_the_pretrained_weights(name, random_weights):
    source = random_weights(name)
    pretrained = build(source, Head(), CLASSES, SIDE, "pretrained", 5).backbone.state_dict()
    scratch = build(source, Head(), CLASSES, SIDE, "he", 5).backbone
    for key, parameter in scratch.named_parameters():
        constant = bool((parameter == parameter.flatten()[0]).all())  # weight 1, bias 0, layer scale
        shared = (parameter == pretrained[key]).float().mean().item()
        assert constant or shared < 1e-3, f"{key}: {shared:.1%} of the values are the pretrained ones"
    for key, buffer in scratch.named_buffers():
        if key.endswith("running_mean"):
            assert not buffer.any(), key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", ["feature_extractor", "partial"])
def test_training_from_stored_features_gives_what_training_through_the_prefix_gives(
    strategy, name, random_weights, dataset, tmp_path
):
    """With two threads: with one, batches of other sizes round otherwise, and that batch norm makes large."""
    torch.set_num_threads(2)
    through = problem_for(STRATEGIES[strategy], random_weights(name), dataset)
    stored = problem_for(STRATEGIES[strategy], random_weights(name), dataset, store=FeatureStore(tmp_path))
    slow, fast = train(through), train(stored)
    for one, other in zip(slow.curve, fast.curve, strict=True):
        assert other["train/loss"] == pytest.approx(one["train/loss"], rel=1e-3, abs=1e-4)
        assert other["val/loss"] == pytest.approx(one["val/loss"], rel=1e-3, abs=1e-4)
    assert torch.allclose(predict(through, through.val), predict(stored, stored.val), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_starts_alike_for_every_strategy_of_a_seed(name, random_weights):
    source = random_weights(name)
    heads = [build(source, Head(), CLASSES, SIDE, start, 7).head.weight for start in ("he", "pretrained")]
    other = build(source, Head(), CLASSES, SIDE, "he", 8).head.weight
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], other)


@pytest.mark.parametrize("name", MODELS)
def test_the_concat_pooling_head_takes_average_and_maximum(name, random_weights, dataset, tmp_path):
    source = random_weights(name)
    model = build(source, Head(kind="concat_pool", hidden=8), CLASSES, SIDE, "pretrained", 5)
    images = torch.randn(4, 3, SIDE, SIDE)
    features = model.features(images)
    channels = model.head[0].channels
    axis = 1 if features.shape[1] == channels else features.ndim - 1
    flat = features.movedim(axis, 1).flatten(2)
    assert torch.equal(model.head[0](features), torch.cat([flat.mean(2), flat.amax(2)], 1))
    assert [type(m).__name__ for m in model.head[1:]] == [
        *("BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear")
    ]
    assert model(images).shape == (4, CLASSES)
    problem = problem_for(
        STRATEGIES["feature_extractor"], source, dataset, store=FeatureStore(tmp_path), head="concat_pool"
    )
    assert len(train(problem).curve) == 2


@pytest.mark.parametrize("name", MODELS)
def test_stages_hold_every_tensor_once_and_there_are_enough_of_them(name, random_weights):
    model = build(random_weights(name), Head(), CLASSES, SIDE, "he", 0)
    named = [tensor for stage in model.stages for tensor in stage.tensors]
    assert sorted(named) == sorted(model.backbone.state_dict())
    assert 4 <= len(model.stages) <= 7
    trainable_groups(model, (1.0,) * (len(model.stages) + 1))
    with pytest.raises(ValueError, match="exactly once"):
        trainable_groups(model, (1.0,) * len(model.stages))


@given(
    stages=st.integers(2, 9),
    unfrozen=st.integers(1, 3),
    decay=st.floats(0.2, 0.9),
    head_rate=st.floats(1, 100),
)
def test_plans_are_what_the_folklore_says(stages, unfrozen, decay, head_rate):
    params = {"unfrozen": unfrozen, "decay": decay, "head_rate": head_rate}
    plans = {
        name: s.plan(stages, s.defaults | {n: v for n, v in params.items() if n in s.search_space})
        for name, s in STRATEGIES.items()
    }
    rows = {name: plan.phases[0].multipliers for name, plan in plans.items()}
    assert rows["scratch"] == (1,) * (stages + 1)
    assert rows["full"] == (1,) * stages + (head_rate,)
    assert rows["feature_extractor"] == (0,) * stages + (1,)
    assert rows["partial"][0] == 0
    assert sum(rows["partial"][:-1]) == min(unfrozen, stages - 1)
    assert rows["partial"][-1] == head_rate
    *backbone, head = rows["discriminative"]
    ratios = [low / high for low, high in pairwise(backbone)]
    assert ratios == pytest.approx([decay] * (stages - 1))
    assert (backbone[-1], head) == (1, head_rate)
    assert STRATEGIES["partial"].plan(stages, params).frozen_prefix == stages - min(unfrozen, stages - 1)
    assert STRATEGIES["feature_extractor"].plan(stages, params).frozen_prefix == stages


@pytest.mark.parametrize(
    "phases",
    [
        (),
        (Phase(1, (1, 1)), Phase(0, (1,))),
        (Phase(1, (-1, 1)),),
        (Phase(1, (float("nan"), 1)),),
        (Phase(0.5, (1, 1)),),
        (Phase(1, (1, 0)),),
    ],
)
def test_a_plan_that_makes_no_sense_cannot_be_built(phases):
    with pytest.raises(ValueError, match=r"."):
        TransferPlan("pretrained", phases)


ONE, SOLVED = (Phase(1, (1, 1)),), Phase(0, (0, 1), "logistic")


@pytest.mark.parametrize(
    ("start", "phases", "beside", "reason"),
    [
        ("pretrained", (Phase(1, (1, 1), "logistic"),), {}, "the head and nothing else"),
        ("pretrained", (Phase(0.5, (0, 1), "hinge"), Phase(0.5, (1, 1))), {}, "no share of the epochs"),
        ("pretrained", (*ONE, SOLVED), {}, "the last of several"),
        ("pretrained", ONE, {"parameters": "adapter"}, "belong together"),
        ("pretrained", ONE, {"adapter": Adapter("lora", 2, 1.0)}, "belong together"),
        ("he", ONE, {"parameters": "norm"}, "from a random start"),
        ("he", ONE, {"l2_sp": 0.1}, "from a random start"),
        ("pretrained", ONE, {"l2_sp": float("nan")}, "finite"),
        ("pretrained", ONE, {"readout": 2}, "can't read behind stage 2"),
        ("pretrained", (Phase(1, (0, 1, 1)),), {"readout": 1}, "is not trained"),
    ],
)
def test_what_stands_beside_a_matrix_fits_it(start, phases, beside, reason):
    with pytest.raises(ValueError, match=reason):
        TransferPlan(start, phases, **beside)
