"""Random views of training images, in batches: which view is shown when, and what a view looks like.

Every random number is a hash of (split_seed, view, index), so a view is the same in any batch, in any order,
for every strategy, and on every device.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.data.counter_rng import hashed, uniform
from bench.data.dataset import stored_side
from bench.study.schema import Augmentation, Target

_GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, as torchvision rounds it
_AREA, _RATIO, _LEFT, _TOP, _HORIZONTAL, _VERTICAL, _ANGLE, _BRIGHTNESS, _CONTRAST, _SATURATION = range(10)


def view_numbers(augmentation: Augmentation, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Return which view each image shows at an epoch: int64, shape (n,).

    With a number of views, each image cycles through all of them, from a place of its own. Without, each seed
    and epoch has a view number of its own.

    Args:
        augmentation: its `views` matter.
        seed: of the run.
        epoch: from 0.
        indices: int64, shape (n,), of images in the data set.
    """
    if augmentation.views is None:
        number = int(hashed(seed, epoch) >> np.uint64(2))
        return np.full(len(indices), number, dtype=np.int64)
    offset = hashed(seed, indices) % np.uint64(augmentation.views)
    return (epoch + offset.astype(np.int64)) % augmentation.views


def augment(
    images: Tensor,
    indices: np.ndarray,
    views: np.ndarray,
    target: Target,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Return the views of images, ready for the network.

    A random resized crop (Szegedy et al. 2015: share of the area uniform, aspect ratio log-uniform; sides
    that would exceed the image are cut to it), flips and a rotation are one affine map, sampled once,
    bilinearly, with reflection beyond the border. Brightness, contrast and saturation follow, in this order,
    as torchvision defines them, each by a factor uniform in 1 +- strength.

    Args:
        images: uint8, shape (B, S, S, 3), on any device.
        indices: int64, shape (B,): the images' places in the data set.
        views: int64, shape (B,): from `view_numbers`.
        target: its `split_seed`, `image_size` and `augmentation` matter.
        mean: three values, of pixels in 0 to 1.
        std: three values.

    Returns:
        float32, shape (B, 3, image_size, image_size), channels last in memory, (x / 255 - mean) / std.
    """
    state = hashed(target.split_seed, views, indices)
    maps = torch.from_numpy(_affine_maps(target.augmentation, state)).to(images.device)
    pixels = _to_unit(images)
    grid = _sampling_grid(maps, target.image_size)
    pixels = functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    return _normalise(_jitter(pixels, target.augmentation, state), mean, std)


def augment_masks(masks: Tensor, indices: np.ndarray, views: np.ndarray, target: Target) -> Tensor:
    """Return the masks of the views that `augment` gives: the same map, the nearest pixel.

    Args:
        masks: uint8, shape (B, S, S); 255 where there is no label.
        indices: as for `augment`.
        views: as for `augment`.
        target: as for `augment`.

    Returns:
        int64, shape (B, image_size, image_size).
    """
    state = hashed(target.split_seed, views, indices)
    maps = torch.from_numpy(_affine_maps(target.augmentation, state)).to(masks.device)
    raised = (masks + 1).float()[:, None]  # 255 wraps to 0, which is also what lies beyond the border
    grid = _sampling_grid(maps, target.image_size)
    raised = functional.grid_sample(raised, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return (raised[:, 0].long() - 1).remainder(256)


def evaluation_view(images: Tensor, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return the one view that images are evaluated by.

    The centre crop where images are stored with the margin for it; images kept at a smaller size of their own
    are resized as a whole.

    Args:
        images: uint8, shape (B, S, S, 3), on any device.
        image_size: pixels, side of the result.
        mean: three values, of pixels in 0 to 1.
        std: three values.

    Returns:
        float32, shape (B, 3, image_size, image_size), channels last in memory, (x / 255 - mean) / std.
    """
    side = images.shape[1]
    if side == stored_side(image_size):
        start = (side - image_size) // 2
        images = images[:, start : start + image_size, start : start + image_size]
    pixels = _to_unit(images)
    if pixels.shape[-1] != image_size:
        pixels = functional.interpolate(
            pixels, (image_size, image_size), mode="bilinear", antialias=side > image_size
        )
    return _normalise(pixels, mean, std)


def _affine_maps(augmentation: Augmentation, state: np.ndarray) -> np.ndarray:
    """Return the maps from output to input coordinates (-1 to 1): float32, shape (B, 2, 3)."""
    low, high = augmentation.crop_scale
    area = low + (high - low) * uniform(state, _AREA)
    narrow, wide = np.log(augmentation.crop_ratio)
    ratio = np.exp(narrow + (wide - narrow) * uniform(state, _RATIO))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    centre_x = (1 - width) * (2 * uniform(state, _LEFT) - 1)
    centre_y = (1 - height) * (2 * uniform(state, _TOP) - 1)
    if augmentation.horizontal_flip:
        width = width * _sign(state, _HORIZONTAL)
    if augmentation.vertical_flip:
        height = height * _sign(state, _VERTICAL)
    angle = math.radians(augmentation.rotation) * (2 * uniform(state, _ANGLE) - 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    rows = [[width * cosine, -height * sine, centre_x], [width * sine, height * cosine, centre_y]]
    return np.moveaxis(np.array(rows, dtype=np.float32), 2, 0)


def _sign(state: np.ndarray, number: int) -> np.ndarray:
    return np.copysign(1, uniform(state, number) - 0.5)


def _sampling_grid(maps: Tensor, size: int) -> Tensor:
    """Return where each output pixel is read: shape (B, size, size, 2).

    `affine_grid` would multiply matrices, whose rounding depends on the size of the batch.
    """
    steps = (torch.arange(size, device=maps.device, dtype=torch.float32) * 2 + 1) / size - 1
    maps = maps[:, None, None]
    return maps[..., 0] * steps[:, None] + maps[..., 1] * steps[:, None, None] + maps[..., 2]


def _jitter(pixels: Tensor, augmentation: Augmentation, state: np.ndarray) -> Tensor:
    def factors(strength: float, number: int) -> Tensor:
        values = (1 + strength * (2 * uniform(state, number) - 1)).astype(np.float32)
        return torch.from_numpy(values).to(pixels.device).view(-1, 1, 1, 1)

    if augmentation.brightness:
        pixels = pixels.mul_(factors(augmentation.brightness, _BRIGHTNESS)).clamp_(0, 1)
    if augmentation.contrast:
        # Summed in float64, because the order of a float32 sum depends on the size of the batch.
        level = _grey(pixels).mean((1, 2, 3), keepdim=True, dtype=torch.float64).float()
        pixels = _blend(pixels, level, factors(augmentation.contrast, _CONTRAST))
    if augmentation.saturation:
        pixels = _blend(pixels, _grey(pixels), factors(augmentation.saturation, _SATURATION))
    return pixels


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return factor * pixels + (1 - factor) * other, within 0 to 1, in the memory of pixels."""
    return pixels.mul_(factor).add_((1 - factor) * other).clamp_(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])[:, None]


def _to_unit(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float().div_(255)


def _normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    means, stds = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (mean, std))
    return pixels.sub_(means).div_(stds)
