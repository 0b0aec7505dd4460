"""The linear probe is the optimum of its loss, whatever path leads there."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.experiment.plan import plan
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.training.feature_store import FeatureStore
from bench.training.linear_probe import solve
from bench.training.targets.classification import Classes
from tests.test_contract import dataset, problem_for, random_weights  # noqa: F401 - fixtures

PENALTIES = (0.01, 100.0, 1.0)


@pytest.fixture
def problems(random_weights, dataset, tmp_path):  # noqa: F811
    def with_penalty(penalty):
        source = random_weights("timm/resnet10t")
        problem = problem_for(STRATEGIES["linear_probe"], source, dataset, store=FeatureStore(tmp_path))
        return dataclasses.replace(problem, weight_decay=penalty)

    return [with_penalty(penalty) for penalty in PENALTIES]


def loss_of(problem, features):
    weight, bias = (
        p.detach().double().requires_grad_() for p in (problem.model.head.weight, problem.model.head.bias)
    )
    logits = features.double() @ weight.T + bias
    loss = functional.cross_entropy(logits, problem.labels[problem.train], reduction="sum")
    return loss + problem.weight_decay / 2 * weight.square().sum(), weight, bias


def test_the_gradient_is_zero_and_stronger_penalties_give_smaller_weights(problems):
    solved = solve(problems)
    norms = {}
    for problem, result in zip(problems, solved, strict=True):
        features = problem.inputs.evaluate(problem.train)
        loss, *variables = loss_of(problem, features)
        scale = features.abs().sum().item()
        for gradient in torch.autograd.grad(loss, variables):
            assert gradient.abs().max().item() < 1e-3 * scale
        norms[problem.weight_decay] = problem.model.head.weight.norm().item()
        assert torch.equal(result.best["head.weight"], problem.model.head.weight)
        assert [row["epoch"] for row in result.curve] == [problem.training.epochs - 1]
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
    binary = dataclasses.replace(problem, targets=Classes(labels), weight_decay=1.0, model=problem.model)
    with torch.no_grad():
        head = torch.nn.Linear(problem.model.widths[0], 2)
    binary.model.head = head
    result = solve([binary])[0]
    assert result.best["head.weight"].shape == (2, problem.model.widths[0])
    assert np.isfinite(result.curve[0]["val/loss"])
