"""A class for each pixel: cross-entropy with Dice if wished, and confusion matrices as predictions."""

import functools
import io
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from bench.data.augmentation import augment_masks, view_numbers
from bench.data.dataset import NO_LABEL, Dataset
from bench.data.mask_colours import paint
from bench.study.schema import Study, Target, Training
from bench.training.device_arrays import DeviceArray
from bench.training.metrics import confusions, scores_by_image, segmentation_scores
from bench.training.targets.base import PredictionRecord

EXAMPLES = 3  # test images that are drawn
GAP = 4  # pixels between the pictures of an example


@dataclass(frozen=True, eq=False)
class Masks:
    """A class for each pixel. Pixels without label count nowhere.

    Args:
        dataset: with masks.
        target: how images are augmented: masks move with them.
        device: where the logits are.
    """

    dataset: Dataset
    target: Target
    device: str

    def calibrated(
        self, _predict: Callable[[np.ndarray], Tensor], _val: np.ndarray
    ) -> tuple["Masks", dict[str, float]]:
        """Return the same: no metric of this task is one of probabilities."""
        return self, {}

    @property
    def labels(self) -> Tensor:
        """Raise ValueError: pixels have labels, images have none."""
        raise ValueError("images with a class per pixel have no labels")

    def weighted(self, _train: np.ndarray, _power: float) -> "Masks":
        """Raise ValueError: a class for each image is what weights are for."""
        raise ValueError("class weights are for one class an image")

    def of(self, dataset: Dataset) -> "Masks":
        """Return the masks of another data set."""
        return replace(self, dataset=dataset)

    def weights_of(self, _labels: Tensor) -> None:
        """Return None: all images count alike."""

    def loss(self, logits: Tensor, indices: np.ndarray, seed: int, epoch: int, training: Training) -> Tensor:
        """Return the mean cross-entropy of the pixels, plus `training.dice` times the Dice loss."""
        masks = self.show(indices, view_numbers(self.target.augmentation, seed, epoch, indices))
        logits = logits.float()
        sums = functional.cross_entropy(
            logits, masks, ignore_index=NO_LABEL, label_smoothing=training.label_smoothing, reduction="sum"
        )
        loss = sums / (masks != NO_LABEL).sum().clamp(min=1)
        return loss + training.dice * _dice()(logits, masks) if training.dice else loss

    def losses(self, _logits: Tensor, _labels: Tensor, _training: Training) -> Tensor:
        """Raise ValueError: heads that are trained together give a class for each image."""
        raise ValueError("images with a class per pixel have no labels")

    def predictions(self, logits: Tensor, indices: np.ndarray) -> Tensor:
        """Return a row for each image: its summed cross-entropy, then its confusion matrix; float64."""
        masks = self.evaluate(indices)
        losses = functional.cross_entropy(logits.float(), masks, ignore_index=NO_LABEL, reduction="none")
        counts = confusions(logits.argmax(1), masks, logits.shape[1])
        return torch.cat([losses.double().sum((1, 2))[:, None], counts.flatten(1).double()], 1)

    def score(
        self, predictions: Tensor, _indices: np.ndarray, _metrics: Collection[str] = ()
    ) -> dict[str, float]:
        """Return loss (mean over pixels), mean IoU and pixel accuracy of the whole set."""
        confusion = confusion_of(predictions.sum(0))
        return {
            "loss": (predictions[:, 0].sum() / confusion.sum()).item(),
            **segmentation_scores(confusion),
        }

    def record(
        self,
        dataset: Dataset,
        predictions: Tensor,
        indices: np.ndarray,
        logits_of: Callable[[np.ndarray], Tensor],
    ) -> PredictionRecord:
        """Return a row for each image and each class that its truth or its prediction shows.

        They are image, target (the class), and in pixels truth, predicted, intersection. Pictures are of
        some images, the same for every run.
        """
        counts = confusion_of(predictions).cpu().numpy().astype(np.int64)
        truth, predicted = counts.sum(2), counts.sum(1)
        image, label = np.nonzero(truth + predicted)
        columns = {
            "image": [dataset.names[indices[i]] for i in image],
            "target": [dataset.classes[c] for c in label],
            "truth": truth[image, label],
            "predicted": predicted[image, label],
            "intersection": counts[image, label, label],
        }
        return PredictionRecord(columns, pictures=_pictures(dataset, predictions, indices, logits_of))

    def show(self, indices: np.ndarray, views: np.ndarray) -> Tensor:
        """Return the masks of given views of images: int64, shape (B, S, S)."""
        return augment_masks(self._masks(indices), indices, views, self.target)

    def evaluate(self, indices: np.ndarray) -> Tensor:
        """Return the masks of the evaluation views: int64, shape (B, S, S)."""
        return self._masks(indices).long()

    def _masks(self, indices: np.ndarray) -> Tensor:
        return self._rows(indices)

    @functools.cached_property
    def _rows(self) -> DeviceArray:
        assert self.dataset.masks is not None, "a data set for segmentation has masks"
        return DeviceArray(self.dataset.masks, self.device)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of classes of which a pixel has one: both (N, classes, S, S)."""
    return logits.softmax(1)


def targets(study: Study, dataset: Dataset, device: str) -> Masks:
    """Return the masks of a data set, for logits on a device."""
    return Masks(dataset, study.target, device)


def confusion_of(predictions: Tensor) -> Tensor:
    """Return the confusion matrices in predictions of `Masks`: (..., 1 + C * C) to (..., C, C)."""
    classes = round((predictions.shape[-1] - 1) ** 0.5)
    return torch.unflatten(predictions[..., 1:], -1, (classes, classes))


def _pictures(
    dataset: Dataset, predictions: Tensor, indices: np.ndarray, logits_of: Callable[[np.ndarray], Tensor]
) -> dict[str, bytes]:
    """Draw some test images, the same for every run: from the middles of equal parts of those with labels."""
    labelled = indices[np.isfinite(scores_by_image(confusion_of(predictions)).cpu().numpy())]
    count = min(EXAMPLES, len(labelled))
    chosen = labelled[(2 * np.arange(count) + 1) * len(labelled) // (2 * max(1, count))]
    masks = logits_of(chosen).argmax(1).to(torch.uint8).cpu().numpy()
    return {
        f"examples/{number}.png": _draw(dataset, int(index), mask)
        for number, (index, mask) in enumerate(zip(chosen, masks, strict=True), 1)
    }


def _draw(dataset: Dataset, index: int, mask: np.ndarray) -> bytes:
    """Draw image, truth and prediction side by side, where there are labels; it knows image and classes."""
    assert dataset.masks is not None
    side, truth = dataset.images.shape[1], dataset.masks[index]
    tiles = [dataset.images[index], paint(truth), paint(np.where(truth == NO_LABEL, NO_LABEL, mask))]
    sheet = np.full((side, 3 * side + 2 * GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        left = place * (side + GAP)
        sheet[:, left : left + side] = tile
    about = PngInfo()
    about.add_text("image", dataset.names[index])
    about.add_text("classes", json.dumps(dataset.classes))
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", pnginfo=about, optimize=True)
    return buffer.getvalue()


@functools.cache
def _dice() -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss 1 - Dice, mean over classes, of Milletari et al. 2016 (V-Net), as smp has it."""
    from segmentation_models_pytorch.losses import DiceLoss

    loss: Callable[[Tensor, Tensor], Tensor] = DiceLoss("multiclass", ignore_index=NO_LABEL)
    return loss
