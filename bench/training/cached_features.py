"""The output of a frozen prefix as a run's input: computed once, read from the store."""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.core.versions import FEATURES
from bench.data.augmentation import view_numbers
from bench.models.partial_forward import replica
from bench.training.device_arrays import DeviceArray
from bench.training.devices import each_on_a_thread
from bench.training.feature_store import FeatureStore, Note
from bench.training.inputs import (
    EVAL_BATCH,
    Images,
)


class Features:
    """The output of a frozen prefix for the images of `Images`: computed once, read from the store.

    Args:
        prefix: from images to features; frozen, in eval mode, on the device.
        identity: all that decides the prefix's output for given pixels: weights, stages, tap of the head.
    """

    def __init__(
        self, images: Images, prefix: nn.Module, identity: Mapping[str, Any], store: FeatureStore
    ) -> None:
        target = images.target
        self.images, self.prefix, self.store = images, prefix, store
        self.identity = {
            **identity,
            "recipe": FEATURES,
            "dataset": images.dataset.digest,
            "image_size": target.image_size,
            "normalisation": [*images.mean, *images.std],
        }
        self.views = target.augmentation.views
        self._seconds = [0.0, 0.0]
        self._computing = 0.0
        self._train: DeviceArray | None = None
        self._shape: tuple[int, ...] = ()
        self._parts: list[tuple[set[int], DeviceArray]] = []

    @property
    def eval_batch(self) -> int:
        """As many as of images, or more where an image has become a vector."""
        return EVAL_BATCH if len(self._shape) == 1 else self.images.eval_batch

    def prepare_training(self, indices: np.ndarray) -> bool:
        """Find or compute all views of the training images, once; False if they can't be kept."""
        assert self.views is not None, "views without number can't be stored"
        if self._train is None:
            augmentation = self.images.target.augmentation.model_dump(mode="json")
            own = {"augmentation": augmentation, "seed": self.images.target.split_seed}
            started = time.perf_counter()
            self._train = self._stored(indices, {**self.identity, **own}, self.views)
            self._seconds[0] += time.perf_counter() - started
        return self._train is not None

    def prepare_evaluation(self, indices: np.ndarray) -> bool:
        """Find or compute the evaluation views of a part; False if they can't be kept."""
        if self._part(indices) is not None:
            return True
        started = time.perf_counter()
        rows = self._stored(indices, {**self.identity, "augmentation": None}, 1)
        self._seconds[1] += time.perf_counter() - started
        if rows is not None:
            self._parts.append((set(indices.tolist()), rows))
        return rows is not None

    def _part(self, indices: np.ndarray) -> DeviceArray | None:
        """Return the evaluation views of a part that has all these images."""
        wanted = indices.tolist()
        return next((rows for known, rows in self._parts if known.issuperset(wanted)), None)

    @property
    def computing_seconds(self) -> float:
        """What it took to compute all these features, whoever did: the cost of a run that finds none."""
        return self._computing

    def take_seconds(self) -> tuple[float, float]:
        """Return the seconds spent on finding or computing features, for training and for evaluation.

        They are given once: the run that made the features pays for them.
        """
        train, evaluation = self._seconds
        self._seconds = [0.0, 0.0]
        return train, evaluation

    def train(self, indices: np.ndarray, seed: int, epoch: int) -> Tensor:
        """Return the features of the augmented images."""
        assert self._train is not None
        views = view_numbers(self.images.target.augmentation, seed, epoch, indices)
        return _channels_last(self._train(indices, views))

    def evaluate(self, indices: np.ndarray) -> Tensor:
        """Return the features of the centre views."""
        rows = self._part(indices)
        assert rows is not None, "prepare_evaluation comes first"
        return _channels_last(rows(indices, np.zeros_like(indices)))

    def _stored(self, indices: np.ndarray, identity: Mapping[str, Any], views: int) -> DeviceArray | None:
        """Return features, (images of the data set, views, ...); None if they can't be kept."""
        self._shape = self._shape or tuple(self._compute(indices[:1], None, self.prefix).shape[1:])
        one = identity["augmentation"] is None

        def fill(array: np.ndarray, rows: np.ndarray, note: Note) -> None:
            own, size = threading.local(), self.images.eval_batch

            def compute(batch: np.ndarray, wanted: int, view: int) -> None:
                if not hasattr(own, "prefix"):
                    own.prefix = replica(self.prefix)
                features = self._compute(batch, None if one else view, own.prefix)
                array[batch[:wanted], view] = features[:wanted].cpu().numpy()

            calls = [(*batch, view) for batch in _filled_up(rows, size) for view in range(views)]
            each_on_a_thread(compute, calls, self.images.device, lambda done: note(done // views * size))

        shape = (len(self.images.dataset.labels), views, *self._shape)
        entry = self.store.get(identity, shape, np.unique(indices), fill)
        if entry is None:
            return None
        self._computing += float(entry.seconds[indices].sum())
        return DeviceArray(entry.array, self.images.device, indices)

    @torch.inference_mode()
    def _compute(self, indices: np.ndarray, view: int | None, prefix: nn.Module) -> Tensor:
        if view is None:
            pixels = self.images.evaluate(indices)
        else:
            pixels = self.images.show(indices, np.full(len(indices), view))
        result: Tensor = prefix(pixels)
        return result


def _channels_last(features: Tensor) -> Tensor:
    return features.to(memory_format=torch.channels_last) if features.ndim == 4 else features


def _filled_up(rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield all rows in batches of one size, and how many of a batch are new: the last begins again.

    What a convolution gives for an image can depend in its last bits on the size of the batch, not on the
    others in it; so an image's features are the same whichever images were wanted when they were computed.
    """
    for start in range(0, len(rows), size):
        yield np.resize(rows, start + size)[start:], min(size, len(rows) - start)
