"""Heads trained together are what each would be alone."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.strategies.registry import STRATEGIES
from bench.study.allowance import evaluation_steps
from bench.study.schema import Training
from bench.training.cached_features import Features
from bench.training.feature_store import FeatureStore
from bench.training.loop import train
from bench.training.parallel_heads import can_train_together, train_heads
from bench.training.phases import train_together
from bench.training.problem import DivergedError, predict, truncate
from tests.test_contract import dataset, problem_for, random_weights  # noqa: F401 - fixtures

SETTINGS = [
    Training(epochs=3, batch_size=5),
    Training(epochs=2, batch_size=4, optimizer="sgd", schedule="cosine", label_smoothing=0.1),
    Training(epochs=2, batch_size=12, gradient_clip=None, schedule="step"),
]


def problems_like(base, build, seeds, training, power=None):
    """Tasks with rates and decays of their own on the inputs of one; every seed has a subset of its own."""
    problems = []
    for place, seed in enumerate(seeds):
        model = build().model
        train_images = np.sort(np.random.default_rng(seed).permutation(base.train)[:10])
        problems.append(
            dataclasses.replace(
                base, model=model, forward=model.head, training=training, seed=seed, train=train_images,
                learning_rate=10.0 ** -(place + 1), weight_decay=0.1 * place,
                targets=base.targets.weighted(train_images, power) if power else base.targets,
            )
        )  # fmt: skip
    return problems


@pytest.fixture
def make(random_weights, dataset, tmp_path):  # noqa: F811
    source, store = random_weights("timm/tf_efficientnet_lite0"), FeatureStore(tmp_path)

    def build():
        return problem_for(STRATEGIES["feature_extractor"], source, dataset, store=store)

    return build


@pytest.mark.parametrize("training", SETTINGS, ids=lambda t: f"{t.optimizer}-{t.schedule}")
@pytest.mark.parametrize("seeds", [(3, 3, 3), (1, 2, 3, 4)], ids=["trials", "seeds"])
def test_heads_are_what_they_would_be_alone(make, seeds, training):
    base = make()
    alone = [train(problem) for problem in problems_like(base, make, seeds, training)]
    problems = problems_like(base, make, seeds, training)
    assert can_train_together(problems)
    together = train_heads(problems)
    for one, other in zip(alone, together, strict=True):
        assert one.best_place == other.best_place
        assert one.best.keys() == other.best.keys()
        for name, tensor in one.best.items():
            torch.testing.assert_close(other.best[name], tensor, rtol=1e-4, atol=1e-6)
        for row, same in zip(one.curve, other.curve, strict=True):
            assert row == pytest.approx(same, rel=1e-4, abs=1e-6)
    assert len({tuple(problem.model.head.weight[0, :3].tolist()) for problem in problems}) == len(problems)
    assert all(
        torch.equal(t.best["head.weight"], problem.model.head.weight)
        for t, problem in zip(together, problems, strict=True)
    )


def test_weights_of_classes_are_each_head_s_own(make):
    base, training = make(), Training(epochs=2, batch_size=5)
    (plain,) = problems_like(base, make, (1,), training)
    alone = [train(problem) for problem in problems_like(base, make, (1, 2), training, power=1.0)]
    weighted = problems_like(base, make, (1, 2), training, power=1.0)
    assert not torch.equal(weighted[0].targets.class_weights, weighted[1].targets.class_weights)
    for one, other in zip(alone, train_heads(weighted), strict=True):
        torch.testing.assert_close(other.best["head.weight"], one.best["head.weight"], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(train(plain).best["head.weight"], alone[0].best["head.weight"], rtol=1e-4)


def test_a_head_that_diverges_leaves_the_others_alone(make):
    training = Training(epochs=2, batch_size=5, gradient_clip=None, optimizer="sgd")
    base = make()
    problems = problems_like(base, make, (3, 3, 3), training)
    problems[1] = dataclasses.replace(problems[1], learning_rate=1e38)
    first, second, third = train_heads(problems)
    assert isinstance(second, DivergedError)
    alone = [train(problem) for problem in problems_like(base, make, (3, 3, 3), training)]
    for one, other in ((alone[0], first), (alone[2], third)):
        torch.testing.assert_close(one.best["head.weight"], other.best["head.weight"], rtol=1e-4, atol=1e-6)
    with pytest.raises(DivergedError):
        truncate(second, "accuracy", lambda _row: True)


def test_what_is_cut_short_is_as_if_it_had_been_stopped(make):
    training = Training(epochs=4, batch_size=5)
    problem = problems_like(make(), make, (3,), training)[0]
    second = evaluation_steps(training, len(problem.train))[1]
    stopped = train(problem, lambda row: row["step"] < second)
    whole = train_heads(problems_like(make(), make, (3, 3), training))[0]
    cut = truncate(whole, "accuracy", lambda row: row["step"] < second)
    assert (cut.stopped, cut.best_place, len(cut.curve)) == (True, stopped.best_place, 2)
    assert cut.curve[-1] == pytest.approx(stopped.curve[-1], rel=1e-4)
    assert cut.train_seconds == pytest.approx(whole.train_seconds / 2)
    assert truncate(whole, "accuracy", lambda _row: True) is whole


def test_only_linear_heads_on_features_of_the_same_length_are_trained_together(make, caplog):
    base = make()
    problems = problems_like(base, make, (1, 2), SETTINGS[0])
    assert isinstance(base.inputs, Features)
    assert not can_train_together([problems[0], dataclasses.replace(problems[1], inputs=base.inputs.images)])
    assert not can_train_together(
        [problems[0], dataclasses.replace(problems[1], train=problems[1].train[:-1])]
    )
    assert not can_train_together([problems[0], dataclasses.replace(problems[1], forward=problems[1].model)])
    assert predict(problems[0], base.val).shape[0] == len(base.val)
    apart = [problems[0], dataclasses.replace(problems[1], inputs=base.inputs.images)]
    assert [train_together(apart), train_together(apart)] == [None, None]
    assert caplog.text.count("heads are not trained together but one by one") == 1
