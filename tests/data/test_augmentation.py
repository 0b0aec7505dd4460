"""Views of images: pure functions of their numbers, right in every single part."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision.transforms import functional as reference

from bench.data.augmentation import (
    _ANGLE,
    _BRIGHTNESS,
    _CONTRAST,
    _RATIO,
    _SATURATION,
    augment,
    evaluation_view,
    view_numbers,
)
from bench.data.counter_rng import hashed, uniform
from bench.data.dataset import stored_side
from bench.study.schema import Augmentation, Target

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
WHOLE = {"crop_scale": (1, 1), "crop_ratio": (1.0, 1.0), "horizontal_flip": False}
EVERYTHING = Augmentation(vertical_flip=True, rotation=30, brightness=0.4, contrast=0.4, saturation=0.4)


def random_images(count: int, side: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def target(size: int, augmentation: Augmentation, split_seed: int = 0) -> Target:
    return Target(data="unused", image_size=size, augmentation=augmentation, split_seed=split_seed)


def view(images, size, augmentation, *, indices=None, views=None, mean=ZERO, std=ONE, split_seed=0):  # noqa: PLR0913
    indices = np.arange(len(images)) if indices is None else indices
    views = np.zeros(len(images), dtype=np.int64) if views is None else views
    return augment(images, indices, views, target(size, augmentation, split_seed), mean, std)


@pytest.mark.parametrize(("side", "size"), [(37, 32), (32, 96), (256, 224)])
def test_an_image_looks_the_same_alone_and_in_any_batch(side, size):
    images, indices, views = random_images(7, side), np.arange(7) * 1000, np.arange(7) % 3
    together = view(images, size, EVERYTHING, indices=indices, views=views)
    for order in ([3], [6, 3, 0], [5, 4, 3, 2]):
        assert torch.equal(
            view(images[order], size, EVERYTHING, indices=indices[order], views=views[order]), together[order]
        )


def test_the_result_has_the_promised_form():
    for result in (
        view(random_images(3, 37), 32, EVERYTHING),
        evaluation_view(random_images(3, 37), 32, ZERO, ONE),
    ):
        assert result.shape == (3, 3, 32, 32)
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_images_are_left_as_they_were():
    images = random_images(3, 32)
    before = images.clone()
    view(images, 32, EVERYTHING)
    evaluation_view(images, 32, ZERO, ONE)
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [32, 48])
def test_no_augmentation_is_the_evaluation_view_of_images_without_margin(size):
    images = random_images(4, 32)
    expected = evaluation_view(images, size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    shown = view(images, size, Augmentation(**WHOLE), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert torch.allclose(shown, expected, atol=2e-5)


def test_the_evaluation_view_is_the_centre_crop_of_images_with_margin():
    images = random_images(2, stored_side(28))
    shown = evaluation_view(images, 28, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = reference.center_crop(images.permute(0, 3, 1, 2), [28, 28]).float() / 255
    assert torch.allclose(shown, reference.normalize(pixels, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), atol=1e-6)


def test_the_evaluation_view_of_small_images_is_the_whole_resized():
    images = random_images(2, 28)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    expected = functional.interpolate(pixels, (64, 64), mode="bilinear")
    assert torch.allclose(evaluation_view(images, 64, ZERO, ONE), expected, atol=1e-6)


@pytest.mark.parametrize(("flip", "dimension"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_half_of_the_images_are_flipped(flip, dimension):
    images = random_images(200, 16)
    shown = view(images, 16, Augmentation(**{**WHOLE, flip: True}))
    straight = evaluation_view(images, 16, ZERO, ONE)
    close = {"atol": 1e-5, "rtol": 0}
    kept = torch.tensor([torch.allclose(a, b, **close) for a, b in zip(shown, straight, strict=True)])
    turned = torch.tensor(
        [torch.allclose(a, b.flip(dimension - 1), **close) for a, b in zip(shown, straight, strict=True)]
    )
    assert (kept ^ turned).all()
    assert 70 < int(turned.sum()) < 130


@pytest.mark.parametrize(
    ("name", "number", "adjust"),
    [
        ("brightness", _BRIGHTNESS, reference.adjust_brightness),
        ("contrast", _CONTRAST, reference.adjust_contrast),
        ("saturation", _SATURATION, reference.adjust_saturation),
    ],
)
def test_jitter_is_torchvisions(name, number, adjust):
    images = random_images(6, 24)
    shown = view(images, 24, Augmentation(**WHOLE, **{name: 0.5}), split_seed=3)
    factors = 1 + 0.5 * (2 * uniform(hashed(3, 0, np.arange(6)), number) - 1)
    assert factors.std() > 0.1
    expected = [adjust(x, f) for x, f in zip(evaluation_view(images, 24, ZERO, ONE), factors, strict=True)]
    assert torch.allclose(shown, torch.stack(expected), atol=1e-5)


def test_jitters_follow_one_another_in_order():
    images = random_images(6, 24)
    shown = view(images, 24, Augmentation(**WHOLE, brightness=0.3, contrast=0.4, saturation=0.5))
    state = hashed(0, 0, np.arange(6))
    expected = evaluation_view(images, 24, ZERO, ONE)
    for strength, number, adjust in (
        (0.3, _BRIGHTNESS, reference.adjust_brightness),
        (0.4, _CONTRAST, reference.adjust_contrast),
        (0.5, _SATURATION, reference.adjust_saturation),
    ):
        factors = 1 + strength * (2 * uniform(state, number) - 1)
        expected = torch.stack([adjust(x, f) for x, f in zip(expected, factors, strict=True)])
    assert torch.allclose(shown, expected, atol=1e-5)


def test_rotation_is_torchvisions_inside_the_circle():
    small = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(small, (64, 64), mode="bicubic").clamp(0, 1)
    images = (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    shown = view(images, 64, Augmentation(**WHOLE, rotation=90))
    angles = 90 * (2 * uniform(hashed(0, 0, np.arange(5)), _ANGLE) - 1)
    straight = evaluation_view(images, 64, ZERO, ONE)
    bilinear = reference.InterpolationMode.BILINEAR
    expected = torch.stack(
        [reference.rotate(x, float(angle), bilinear) for x, angle in zip(straight, angles, strict=True)]
    )
    along = torch.arange(64) - 31.5
    inside = (along[:, None] ** 2 + along**2) < 30**2
    assert torch.allclose(shown[..., inside], expected[..., inside], atol=0.01)


SHARES = st.lists(st.floats(0.1, 0.95), min_size=2, max_size=2).map(sorted)
RATIOS = st.lists(st.floats(0.5, 2), min_size=2, max_size=2).map(sorted)


@settings(max_examples=15)
@given(SHARES, RATIOS, st.integers(0, 2**40))
def test_crops_lie_inside_and_have_the_area_and_ratio_asked_for(scale, ratio, index):
    """Coordinates painted as colours say where the corners of a view were."""
    side = 128
    across = torch.arange(side, dtype=torch.float32).expand(side, side)
    images = torch.stack([across, across.T, across], dim=2).to(torch.uint8).repeat(20, 1, 1, 1)
    augmentation = Augmentation(crop_scale=tuple(scale), crop_ratio=tuple(ratio), horizontal_flip=False)
    shown = view(images, 64, augmentation, indices=index + np.arange(20)) * 255
    middle = shown[:, :2, 16:48, 16:48]  # away from the reflection at the border
    step_x = (middle[:, 0, 0, -1] - middle[:, 0, 0, 0]) / 31
    step_y = (middle[:, 1, -1, 0] - middle[:, 1, 0, 0]) / 31
    width, height = step_x * 64 / side, step_y * 64 / side
    assert (torch.maximum(width, height) <= 1.01).all()
    centre = shown[:, :2, 31:33, 31:33].mean((2, 3)) + 0.5
    half = torch.stack([width, height], dim=1) * side / 2
    assert (centre - half > -1).all()
    assert (centre + half < side + 1).all()
    uncut = torch.maximum(width, height) < 0.99
    area, shape = (width * height)[uncut], (width / height)[uncut]
    assert ((area > scale[0] * 0.97) & (area < scale[1] * 1.03)).all()
    assert ((shape > ratio[0] * 0.97) & (shape < ratio[1] * 1.03)).all()


def test_crops_are_spread_over_the_range():
    state = hashed(0, 0, np.arange(5000))
    ratios = np.exp(np.log(0.75) + (np.log(4 / 3) - np.log(0.75)) * uniform(state, _RATIO))
    assert math.isclose(np.mean(ratios < 1), 0.5, abs_tol=0.03)  # log-uniform: as often tall as wide


@given(st.integers(1, 9), st.integers(-5, 2**40), st.integers(0, 50))
def test_views_are_cycled_through(views, seed, epoch):
    indices = np.arange(20) * 7
    shown = np.stack(
        [view_numbers(Augmentation(views=views), seed, epoch + e, indices) for e in range(views)]
    )
    assert (np.sort(shown, axis=0) == np.arange(views)[:, None]).all()
    assert (view_numbers(Augmentation(views=views), seed, epoch + views, indices) == shown[0]).all()
    assert shown.dtype == np.int64


def test_views_start_at_different_places():
    shown = view_numbers(Augmentation(views=8), 0, 0, np.arange(1000))
    assert np.bincount(shown).min() > 80
    assert (shown != view_numbers(Augmentation(views=8), 1, 0, np.arange(1000))).mean() > 0.8


def test_without_a_number_of_views_each_seed_and_epoch_has_its_own():
    unlimited = Augmentation(views=None)
    numbers = [view_numbers(unlimited, s, e, np.arange(3)) for s in range(10) for e in range(10)]
    assert len({int(n[0]) for n in numbers}) == 100
    assert all((n == n[0]).all() and n.min() >= 0 and n.dtype == np.int64 for n in numbers)


@pytest.mark.parametrize("change", [{"indices": np.array([1])}, {"views": np.array([1])}, {"split_seed": 1}])
def test_index_view_and_split_seed_each_change_the_view(change):
    images = random_images(1, 32)
    assert not torch.allclose(view(images, 32, EVERYTHING), view(images, 32, EVERYTHING, **change), atol=0.01)
