"""What a run trains on: batches of augmented images, or of what a frozen prefix makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from bench.data.augmentation import augment, evaluation_view, view_numbers
from bench.data.dataset import Dataset
from bench.study.allowance import batches_per_epoch
from bench.study.schema import Target
from bench.training.device_arrays import DeviceArray

EVAL_BATCH = 256  # most images in a batch for evaluation
# Most pixels in it: on a GPU what memory is sure to take; on a CPU about what its caches hold, twice as fast
# at 224 px. A rule and not a measurement, because another batch size would change the last bits of a result.
EVAL_PIXELS = {"cuda": 256 * 224 * 224, "cpu": 32 * 96 * 96}


class Inputs(Protocol):
    """Gives the tensors that a model is trained and evaluated on, on the device."""

    @property
    def eval_batch(self) -> int:
        """How many images to evaluate at once."""

    def train(self, indices: np.ndarray, seed: int, epoch: int) -> Tensor:
        """Return what images `indices` show in an epoch of a seed."""

    def evaluate(self, indices: np.ndarray) -> Tensor:
        """Return the evaluation views of images `indices`."""


@dataclass(frozen=True, eq=False)
class Images:
    """Normalised images, float32, shape (B, 3, side, side), channels last."""

    dataset: Dataset
    target: Target
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: str

    @property
    def eval_batch(self) -> int:
        """As many images as the device takes well."""
        pixels = EVAL_PIXELS[self.device.partition(":")[0]]
        return max(2, min(EVAL_BATCH, pixels // self.target.image_size**2))

    def train(self, indices: np.ndarray, seed: int, epoch: int) -> Tensor:
        """Return the augmented images."""
        return self.show(indices, view_numbers(self.target.augmentation, seed, epoch, indices))

    def show(self, indices: np.ndarray, views: np.ndarray) -> Tensor:
        """Return given views of images."""
        return augment(self._pixels(indices), indices, views, self.target, self.mean, self.std)

    def evaluate(self, indices: np.ndarray) -> Tensor:
        """Return the centre views."""
        return evaluation_view(self._pixels(indices), self.target.image_size, self.mean, self.std)

    def _pixels(self, indices: np.ndarray) -> Tensor:
        return self._rows(indices)

    @cached_property
    def _rows(self) -> DeviceArray:
        return DeviceArray(self.dataset.images, self.device)


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield all indices in batches of nearly equal size: none is dropped, none is a single image.

    A batch has at most `size` images, or one more where a single one would be left over: BatchNorm can't
    train on one.
    """
    yield from np.array_split(indices, batches_per_epoch(len(indices), size))
