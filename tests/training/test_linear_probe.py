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
from bench.training.targets import Classes
from tests.test_contract import dataset, random_weights, task_for  # noqa: F401 - fixtures

PENALTIES = (0.01, 100.0, 1.0)


@pytest.fixture
def tasks(random_weights, dataset, tmp_path):  # noqa: F811
    def with_penalty(penalty):
        source = random_weights("timm/resnet10t")
        task = task_for(STRATEGIES["linear_probe"], source, dataset, store=FeatureStore(tmp_path))
        return dataclasses.replace(task, weight_decay=penalty)

    return [with_penalty(penalty) for penalty in PENALTIES]


def loss_of(task, features):
    weight, bias = (
        p.detach().double().requires_grad_() for p in (task.model.head.weight, task.model.head.bias)
    )
    logits = features.double() @ weight.T + bias
    loss = functional.cross_entropy(logits, task.labels[task.train], reduction="sum")
    return loss + task.weight_decay / 2 * weight.square().sum(), weight, bias


def test_the_gradient_is_zero_and_stronger_penalties_give_smaller_weights(tasks):
    solved = solve(tasks)
    norms = {}
    for task, result in zip(tasks, solved, strict=True):
        features = task.inputs.evaluate(task.train)
        loss, *variables = loss_of(task, features)
        scale = features.abs().sum().item()
        for gradient in torch.autograd.grad(loss, variables):
            assert gradient.abs().max().item() < 1e-3 * scale
        norms[task.weight_decay] = task.model.head.weight.norm().item()
        assert torch.equal(result.best["head.weight"], task.model.head.weight)
        assert [row["epoch"] for row in result.curve] == [task.training.epochs - 1]
    assert norms[0.01] > norms[1.0] > norms[100.0] > 0


def test_alone_and_along_a_path_are_the_same_optimum(tasks):
    along = solve(tasks)
    for task, result in zip(tasks, along, strict=True):
        features = task.inputs.evaluate(task.train)
        task.model.load_state_dict(result.best, strict=False)
        along_the_path = loss_of(task, features)[0].item()
        solve([task])
        assert loss_of(task, features)[0].item() == pytest.approx(along_the_path, rel=0.02, abs=1e-3)


def test_it_is_named_that_the_head_does_not_fit():
    from bench.core.errors import InputError

    changes = ["strategies=[linear_probe]", "head.dropout=0.5"]
    with pytest.raises(InputError, match="linear_probe needs a linear head without dropout"):
        plan(load("small_similar", changes))


def test_two_classes_are_one_problem(random_weights, dataset, tmp_path):  # noqa: F811
    task = task_for(STRATEGIES["linear_probe"], random_weights("timm/resnet10t"), dataset)
    labels = task.labels.clone().remainder(2)
    binary = dataclasses.replace(task, targets=Classes(labels), weight_decay=1.0, model=task.model)
    with torch.no_grad():
        head = torch.nn.Linear(task.model.widths[0], 2)
    binary.model.head = head
    result = solve([binary])[0]
    assert result.best["head.weight"].shape == (2, task.model.widths[0])
    assert np.isfinite(result.curve[0]["val/loss"])
