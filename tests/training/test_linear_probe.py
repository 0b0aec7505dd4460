"""The linear probe is the optimum of its loss, whatever path leads there."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.experiment.plan import plan
from bench.strategies.registry import STRATEGIES
from bench.study.allowance import evaluation_steps
from bench.study.loading import load
from bench.training.feature_store import FeatureStore
from bench.training.linear_probe import solve
from bench.training.targets.classification import Classes
from tests.test_contract import dataset, problem_for, random_weights  # noqa: F401 - fixtures

STRENGTHS = (0.01, 100.0, 1.0)


@pytest.fixture
def problems(random_weights, dataset, tmp_path):  # noqa: F811
    def with_strength(strength):
        source = random_weights("timm/resnet10t")
        problem = problem_for(STRATEGIES["linear_probe"], source, dataset, store=FeatureStore(tmp_path))
        return dataclasses.replace(problem, l2_strength=strength)

    return [with_strength(strength) for strength in STRENGTHS]


def loss_of(problem, features):
    weight, bias = (
        p.detach().double().requires_grad_() for p in (problem.model.head.weight, problem.model.head.bias)
    )
    logits = features.double() @ weight.T + bias
    loss = functional.cross_entropy(logits, problem.labels[problem.train], reduction="sum")
    return loss + problem.l2_strength / 2 * weight.square().sum(), weight, bias


def test_the_gradient_is_zero_and_a_stronger_l2_gives_smaller_weights(problems):
    solved = solve(problems)
    norms = {}
    for problem, result in zip(problems, solved, strict=True):
        features = problem.inputs.evaluate(problem.train)
        loss, *variables = loss_of(problem, features)
        scale = features.abs().sum().item()
        for gradient in torch.autograd.grad(loss, variables):
            assert gradient.abs().max().item() < 1e-3 * scale
        norms[problem.l2_strength] = problem.model.head.weight.norm().item()
        assert torch.equal(result.best["head.weight"], problem.model.head.weight)
        last = evaluation_steps(problem.training, len(problem.train))[-1]
        assert [row["step"] for row in result.curve] == [last]
    assert norms[0.01] > norms[1.0] > norms[100.0] > 0


def test_alone_and_along_a_path_are_the_same_optimum(problems):
    along = solve(problems)
    for problem, result in zip(problems, along, strict=True):
        features = problem.inputs.evaluate(problem.train)
        problem.model.load_state_dict(result.best, strict=False)
        along_the_path = loss_of(problem, features)[0].item()
        solve([problem])
        assert loss_of(problem, features)[0].item() == pytest.approx(along_the_path, rel=0.02, abs=1e-3)


def test_it_is_named_that_the_head_does_not_fit():
    from bench.core.errors import InputError

    changes = ["strategies=[linear_probe]", "head.dropout=0.5"]
    with pytest.raises(InputError, match="linear_probe needs a linear head without dropout"):
        plan(load("small_similar", changes))


def test_two_classes_are_one_problem(random_weights, dataset, tmp_path):  # noqa: F811
    problem = problem_for(STRATEGIES["linear_probe"], random_weights("timm/resnet10t"), dataset)
    labels = problem.labels.clone().remainder(2)
    binary = dataclasses.replace(problem, targets=Classes(labels), l2_strength=1.0, model=problem.model)
    with torch.no_grad():
        head = torch.nn.Linear(problem.model.widths[0], 2)
    binary.model.head = head
    result = solve([binary])[0]
    assert result.best["head.weight"].shape == (2, problem.model.widths[0])
    assert np.isfinite(result.curve[0]["val/loss"])


def test_the_support_vector_machine_is_that_of_scikit_learn(random_weights, dataset):  # noqa: F811
    from sklearn.svm import LinearSVC

    source = random_weights("timm/resnet10t")
    problem = problem_for(STRATEGIES["earlier_features_svm"], source, dataset)
    problem = dataclasses.replace(problem, l2_strength=10.0)
    solve([problem])
    with torch.no_grad():
        features = problem.model.eval().features(problem.inputs.evaluate(problem.train)).numpy()
        scores = problem.model.head(torch.from_numpy(features)).numpy()
    reference = LinearSVC(C=0.1, dual=False, max_iter=10_000, tol=1e-8)
    reference.fit(features.astype(np.float64), problem.labels[problem.train].numpy())
    assert np.allclose(scores, reference.decision_function(features), atol=1e-2)


@pytest.mark.parametrize("solver", ["linear_probe", "earlier_features_svm"])
def test_balanced_weights_are_those_of_scikit_learn(random_weights, dataset, solver):  # noqa: F811
    """Trained on uneven classes: 4, 4 and 1 images.

    A weight is an image's, against whichever class: `LinearSVC(class_weight=...)` has it for its own only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC
    from sklearn.utils import compute_sample_weight

    problem = problem_for(STRATEGIES[solver], random_weights("timm/resnet10t"), dataset)
    labels = problem.labels[problem.train].numpy()
    uneven = problem.train[(labels != 2) | (np.cumsum(labels == 2) == 1)]
    targets = problem.targets.weighted(uneven, 1.0)
    problem = dataclasses.replace(problem, train=uneven, targets=targets, l2_strength=10.0)
    solve([problem])
    with torch.no_grad():
        features = problem.model.eval().features(problem.inputs.evaluate(uneven)).double().numpy()
        scores = problem.model.head(torch.from_numpy(features).float()).numpy()
    references = {
        "linear_probe": LogisticRegression(C=0.1, max_iter=1000, tol=1e-8),
        "earlier_features_svm": LinearSVC(C=0.1, dual=False, tol=1e-8),
    }
    labels = problem.labels[uneven].numpy()
    reference = references[solver].fit(features, labels, compute_sample_weight("balanced", labels))
    assert np.allclose(scores, reference.decision_function(features), atol=2e-2)


def test_runs_that_read_different_stages_are_solved_on_their_own(random_weights, dataset):  # noqa: F811
    """Another stage gives other features, of another width: no path of L2 strengths leads across."""
    strategy, source = STRATEGIES["earlier_features"], random_weights("timm/resnet10t")
    problems = []
    for depth in (0.1, 0.9, 0.1):
        at = dataclasses.replace(strategy, readout=lambda n, _, d=depth: strategy.readout(n, {"depth": d}))
        problems.append(problem_for(at, source, dataset))
    together, alone = solve(problems), [solve([problem])[0] for problem in problems]
    assert problems[0].plan.readout != problems[1].plan.readout
    for one, other in zip(together, alone, strict=True):
        assert one.curve[0]["val/loss"] == pytest.approx(other.curve[0]["val/loss"], rel=1e-2)
