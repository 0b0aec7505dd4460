"""What stands beside the matrix: a pull towards the start, chosen parameters, adapters, earlier stages."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.models.factory import build, with_adapter
from bench.models.stages import pooled
from bench.strategies.plan import Adapter
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Head
from bench.training.optimizers import build_optimizer, freeze
from bench.training.phases import train_as_planned
from bench.training.problem import plain_state, predict
from bench.training.start_penalty import StartPenalty
from bench.training.weight_drift import DriftReference
from tests.test_contract import CLASSES, SIDE, dataset, problem_for, random_weights  # noqa: F401 - fixtures

RESNET = "timm/resnet10t"


def test_the_pull_towards_the_start_has_the_gradient_of_its_penalty(random_weights):  # noqa: F811
    model = build(random_weights(RESNET), Head(), CLASSES, SIDE, "pretrained", 5)
    penalty = StartPenalty(model, 0.3)
    weights = list(model.backbone.parameters())
    frozen = weights[0].requires_grad_(False)
    start = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(torch.randn_like(weight))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    penalty.add_gradients()
    assert torch.equal(frozen.grad, torch.ones_like(frozen))
    trained = [
        (weight.detach().clone().requires_grad_(), at) for weight, at in zip(weights, start, strict=True)
    ]
    value = sum(0.3 / 2 * (weight - at).square().sum() for weight, at in trained)
    by_hand = torch.autograd.grad(value, [weight for weight, _ in trained])
    for weight, gradient in list(zip(weights, by_hand, strict=True))[1:]:
        assert torch.allclose(weight.grad, 1 + gradient, atol=1e-6)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.head.parameters())


def test_the_pull_towards_the_start_stands_in_for_the_backbones_decay(random_weights, dataset):  # noqa: F811
    problem = problem_for(STRATEGIES["l2_sp"], random_weights(RESNET), dataset)
    row = problem.plan.phases[0].multipliers
    freeze(problem.model, row)
    optimizer = build_optimizer(problem.model, row, 0.1, 0.5, problem.training)
    StartPenalty(problem.model, problem.plan.l2_sp).replace_decay(optimizer, problem.plan.stages)
    decays = {
        (group["stage"] == problem.plan.stages, group["weight_decay"]) for group in optimizer.param_groups
    }
    assert decays == {(False, 0.0), (True, 0.5), (True, 0.0)}


def test_a_stronger_pull_leaves_the_weights_nearer_to_their_start(random_weights, dataset):  # noqa: F811
    source, distances = random_weights(RESNET), []
    start = build(source, Head(), CLASSES, SIDE, "pretrained", 5)
    for strength in (0.0, 1e4):
        problem = problem_for(STRATEGIES["l2_sp"], source, dataset, epochs=4)
        problem = replace(problem, plan=replace(problem.plan, l2_sp=strength))
        train_as_planned(problem)
        pairs = zip(start.backbone.parameters(), problem.model.backbone.parameters(), strict=True)
        distances.append(sum((a - b).square().sum().item() for a, b in pairs))
    assert distances[1] < distances[0] / 2


def test_a_model_without_norms_says_so(random_weights, dataset):  # noqa: F811
    problem = problem_for(STRATEGIES["full"], random_weights("torchvision/squeezenet1_1"), dataset)
    with pytest.raises(ValueError, match="no norm parameters"):
        freeze(problem.model, problem.plan.phases[0].multipliers, "norm")


@pytest.mark.parametrize("model", [RESNET, "timm/vit_tiny_patch16_224", "timm/convnext_atto"])
def test_the_head_reads_the_pooled_output_of_an_earlier_stage(random_weights, dataset, model):  # noqa: F811
    problem = problem_for(STRATEGIES["earlier_features"], random_weights(model), dataset)
    readout, images = problem.plan.readout, problem.inputs.evaluate(np.arange(3))
    assert 1 <= readout < problem.plan.stages
    last, seen = problem.model.stages[readout - 1].modules[-1], []
    layer = problem.model.backbone.get_submodule(last)
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        features = problem.model.eval().features(images)
        problem.model.backbone(images)
    assert torch.equal(features, pooled(seen[-1]))
    assert features.shape == (3, problem.model.head.in_features)


@pytest.mark.parametrize("model", [RESNET, "timm/vit_tiny_patch16_224", "timm/tf_efficientnet_lite0"])
def test_a_low_rank_change_begins_at_nothing_and_ends_in_plain_weights(random_weights, dataset, model):  # noqa: F811
    pytest.importorskip("peft")
    source = random_weights(model)
    problem = problem_for(STRATEGIES["lora"], source, dataset, epochs=3)
    plain = build(source, Head(), CLASSES, SIDE, "pretrained", 5)
    with torch.no_grad():
        images = problem.inputs.evaluate(np.arange(4))
        assert torch.allclose(problem.model.eval()(images), plain(images), atol=1e-5)
    best = train_as_planned(problem).best
    with torch.no_grad():
        assert not torch.allclose(problem.model.eval()(images), plain(images), atol=1e-4)
    assert set(best) == set(plain.state_dict())
    plain.load_state_dict(best)
    with torch.no_grad():
        assert torch.allclose(
            predict(problem, problem.val), plain.eval()(problem.inputs.evaluate(problem.val)), atol=1e-4
        )


def test_how_far_a_low_rank_change_moved_the_weights_is_measured(random_weights, dataset):  # noqa: F811
    pytest.importorskip("peft")
    source = random_weights("timm/vit_tiny_patch16_224")
    problem = problem_for(STRATEGIES["lora"], source, dataset, epochs=3)
    train_as_planned(problem)
    images = problem.inputs.evaluate(np.arange(12))
    reference = DriftReference(build(source, Head(), CLASSES, SIDE, "pretrained", 5), lambda: [images])
    moved = reference.measure(problem.model, problem.plan)
    assert (
        len([name for name in moved if name.endswith("/change") and moved[name] > 0]) == problem.plan.stages
    )
    names = plain_state(problem.model, problem.plan)
    assert not [name for name in names if "lora" in name or "base_layer" in name]


def test_an_adapter_is_drawn_by_its_seed(random_weights):  # noqa: F811
    pytest.importorskip("peft")
    models = [
        with_adapter(
            build(random_weights(RESNET), Head(), CLASSES, SIDE, "pretrained", 5), Adapter("lora", 4, 2.0), s
        )
        for s in (1, 1, 2)
    ]
    first, same, other = ({n: t for n, t in m.state_dict().items() if "lora_A" in n} for m in models)
    assert first
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())
    named = [tensor for stage in models[0].stages for tensor in stage.tensors]
    assert sorted(named) == sorted(models[0].backbone.state_dict())
