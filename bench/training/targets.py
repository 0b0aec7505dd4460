"""What a run is to get right, a class per image or per pixel: its loss, and how its answers are scored."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.data.augmentation import augment_masks, view_numbers
from bench.data.dataset import NO_LABEL, Dataset
from bench.study.schema import Target, Training
from bench.training.device_arrays import Rows
from bench.training.metrics import confusions, score, segmentation_scores


class Targets(Protocol):
    """The truth about all images, and what follows from it for logits."""

    def loss(self, logits: Tensor, indices: np.ndarray, seed: int, epoch: int, training: Training) -> Tensor:
        """Return the loss of the logits of what images `indices` show in an epoch of a seed."""

    def answer(self, logits: Tensor, indices: np.ndarray) -> Tensor:
        """Return what is kept of the logits of evaluation views: a row for each image."""

    def score(self, answers: Tensor, indices: np.ndarray) -> dict[str, float]:
        """Return the loss and all metrics of kept answers."""


@dataclass(frozen=True, eq=False)
class Classes:
    """A class for each image: cross-entropy, and the logits as answers.

    Args:
        labels: int64, shape (N,), of the whole data set, on the device.
    """

    labels: Tensor

    def loss(
        self, logits: Tensor, indices: np.ndarray, _seed: int, _epoch: int, training: Training
    ) -> Tensor:
        """Return the mean cross-entropy, with the study's label smoothing."""
        return functional.cross_entropy(
            logits.float(), self.labels[indices], label_smoothing=training.label_smoothing
        )

    def answer(self, logits: Tensor, _indices: np.ndarray) -> Tensor:
        """Return the logits, shape (B, classes)."""
        return logits.float()

    def score(self, answers: Tensor, indices: np.ndarray) -> dict[str, float]:
        """Return loss, accuracy and balanced accuracy."""
        return score(answers, self.labels[indices])


@dataclass(frozen=True, eq=False)
class Masks:
    """A class for each pixel: cross-entropy, optionally with Dice; confusion matrices as answers.

    Pixels without label count nowhere.

    Args:
        dataset: with masks.
        target: how images are augmented: masks move with them.
        device: where the logits are.
    """

    dataset: Dataset
    target: Target
    device: str

    def loss(self, logits: Tensor, indices: np.ndarray, seed: int, epoch: int, training: Training) -> Tensor:
        """Return the mean cross-entropy of the pixels, plus `training.dice` times the Dice loss."""
        masks = self.show(indices, view_numbers(self.target.augmentation, seed, epoch, indices))
        logits = logits.float()
        sums = functional.cross_entropy(
            logits, masks, ignore_index=NO_LABEL, label_smoothing=training.label_smoothing, reduction="sum"
        )
        loss = sums / (masks != NO_LABEL).sum().clamp(min=1)
        return loss + training.dice * _dice()(logits, masks) if training.dice else loss

    def answer(self, logits: Tensor, indices: np.ndarray) -> Tensor:
        """Return a row for each image: its summed cross-entropy, then its confusion matrix; float64."""
        masks = self.evaluate(indices)
        losses = functional.cross_entropy(logits.float(), masks, ignore_index=NO_LABEL, reduction="none")
        counts = confusions(logits.argmax(1), masks, logits.shape[1])
        return torch.cat([losses.double().sum((1, 2))[:, None], counts.flatten(1).double()], 1)

    def score(self, answers: Tensor, _indices: np.ndarray) -> dict[str, float]:
        """Return loss (mean over pixels), mean IoU and pixel accuracy of the whole set."""
        confusion = confusion_of(answers.sum(0))
        return {"loss": (answers[:, 0].sum() / confusion.sum()).item(), **segmentation_scores(confusion)}

    def show(self, indices: np.ndarray, views: np.ndarray) -> Tensor:
        """Return the masks of given views of images: int64, shape (B, S, S)."""
        return augment_masks(self._masks(indices), indices, views, self.target)

    def evaluate(self, indices: np.ndarray) -> Tensor:
        """Return the masks of the evaluation views: int64, shape (B, S, S)."""
        return self._masks(indices).long()

    def _masks(self, indices: np.ndarray) -> Tensor:
        return self._rows(indices)

    @functools.cached_property
    def _rows(self) -> Rows:
        assert self.dataset.masks is not None, "a data set for segmentation has masks"
        return Rows(self.dataset.masks, self.device)


def confusion_of(answers: Tensor) -> Tensor:
    """Return the confusion matrices in answers of `Masks`: (..., 1 + C * C) to (..., C, C)."""
    classes = round((answers.shape[-1] - 1) ** 0.5)
    return torch.unflatten(answers[..., 1:], -1, (classes, classes))


@functools.cache
def _dice() -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss 1 - Dice, mean over classes, of Milletari et al. 2016 (V-Net), as smp has it."""
    from segmentation_models_pytorch.losses import DiceLoss

    loss: Callable[[Tensor, Tensor], Tensor] = DiceLoss("multiclass", ignore_index=NO_LABEL)
    return loss
