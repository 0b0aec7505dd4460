import copy

import pytest
import torch
from torch import nn

from bench.models.small_maps import speed_up_small_maps


def twins(**options):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, groups=8, **options).double()
    other = copy.deepcopy(plain)
    speed_up_small_maps(other)
    return plain, other


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_output_and_gradients_are_those_of_the_convolution(size, kernel, stride):
    plain, other = twins(kernel_size=kernel, stride=stride, padding=kernel // 2)
    images = torch.randn(2, 8, size, size + 1, dtype=torch.double)
    answers = []
    for convolution in (plain, other):
        x = images.clone().requires_grad_()
        output = convolution(x)
        output.square().sum().backward()
        answers.append((output, x.grad, convolution.weight.grad, convolution.bias.grad))
    assert type(other) is not type(plain)
    for one, two in zip(*answers, strict=True):
        torch.testing.assert_close(one, two)


def test_nothing_is_padded_where_nothing_trains():
    plain, other = twins(kernel_size=5, padding=2)
    images = torch.randn(2, 8, 3, 3, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(plain(images), other(images))
    for frozen in (plain, other):
        frozen.requires_grad_(requires_grad=False)
    assert torch.equal(plain(images), other(images))


def test_only_plain_depthwise_convolutions_change():
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
    )
    names = list(model.state_dict())
    speed_up_small_maps(model)
    assert [type(module) is nn.Conv2d for module in model] == [True] * 4 + [False]
    assert list(model.state_dict()) == names
