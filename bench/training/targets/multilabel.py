"""Any number of classes for each image: binary cross-entropy, and the logits as predictions."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.analysis.predictions.base import Predictions
from bench.analysis.predictions.classification import one_class_counts
from bench.analysis.statistics import value
from bench.core.runs import Scores
from bench.data.dataset import Dataset
from bench.data.tasks.multilabel import LabelSets
from bench.study.metrics import METRICS
from bench.study.schema import Study, Training
from bench.training.targets.base import PredictionRecord


@dataclass(frozen=True, eq=False)
class Labels:
    """Any number of classes for each image. A class is predicted where its probability is above 1/2.

    Args:
        labels: float32, shape (N, classes), of the whole data set, on the device: 1 where an image has it.
    """

    labels: Tensor

    def calibrated(
        self, _predict: Callable[[np.ndarray], Tensor], _val: np.ndarray
    ) -> tuple["Labels", dict[str, float]]:
        """Return the same: no metric of this task is one of probabilities."""
        return self, {}

    def weighted(self, _train: np.ndarray, _power: float) -> "Labels":
        """Raise ValueError: a class for each image is what weights are for."""
        raise ValueError("class weights are for one class an image")

    def of(self, dataset: Dataset) -> "Labels":
        """Return the label sets of another data set."""
        assert isinstance(dataset, LabelSets), "the data of this task have label sets"
        return Labels(torch.from_numpy(dataset.label_sets.astype(np.float32)).to(self.labels.device))

    def weights_of(self, _labels: Tensor) -> None:
        """Return None: all images count alike."""

    def loss(
        self, logits: Tensor, indices: np.ndarray, _seed: int, _epoch: int, training: Training
    ) -> Tensor:
        """Return the mean binary cross-entropy over images and classes, with the study's label smoothing."""
        return self.losses(logits, self.labels[indices], training).mean()

    def losses(self, logits: Tensor, labels: Tensor, training: Training) -> Tensor:
        """Return each image's mean binary cross-entropy over classes; smoothed labels are drawn to 1/2."""
        smoothed = labels + training.label_smoothing * (0.5 - labels)
        each = functional.binary_cross_entropy_with_logits(logits.float(), smoothed, reduction="none")
        return each.mean(1)

    def predictions(self, logits: Tensor, _indices: np.ndarray) -> Tensor:
        """Return the logits, shape (B, classes)."""
        return logits.float()

    def score(
        self, predictions: Tensor, indices: np.ndarray, metrics: Collection[str] = ()
    ) -> dict[str, float]:
        """Return loss and the metrics named."""
        labels = self.labels[indices]
        loss = functional.binary_cross_entropy_with_logits(predictions, labels).item()
        run = _one_run(predictions.cpu().numpy(), labels.cpu().numpy())
        return {"loss": loss, **{name: value(METRICS[name], run) for name in metrics}}

    def record(
        self,
        dataset: Dataset,
        predictions: Tensor,
        indices: np.ndarray,
        _logits_of: Callable[[np.ndarray], Tensor],
    ) -> PredictionRecord:
        """Return a row for each image and each class that its truth or its prediction has.

        They are image, target (the class), and, 1 or 0, truth, predicted, intersection. An image that has
        none in either is a row with an empty target. What images are ranked by are the logits.
        """
        logits, truth = predictions.cpu().numpy(), self.labels[indices].cpu().numpy().astype(np.int64)
        chosen = (logits > 0).astype(np.int64)
        either = (truth + chosen) > 0
        image, label = np.nonzero(np.concatenate([either, ~either.any(1, keepdims=True)], 1))
        names, titles = [dataset.names[i] for i in indices], [*dataset.classes, ""]
        padded = [np.pad(part, ((0, 0), (0, 1))) for part in (truth, chosen, truth * chosen)]
        columns: dict[str, list[str] | np.ndarray] = {
            "image": [names[i] for i in image],
            "target": [titles[c] for c in label],
            "truth": padded[0][image, label],
            "predicted": padded[1][image, label],
            "intersection": padded[2][image, label],
        }
        return PredictionRecord(columns, Scores(names, dataset.classes, logits))


def _one_run(logits: np.ndarray, labels: np.ndarray) -> Predictions:
    """Return the predictions of a run, as statistics take them."""
    chosen = (logits > 0).astype(float)
    return Predictions(
        rows={},
        correct=(chosen == labels).mean(1)[None],
        targets=np.full(len(labels), ""),
        dropped=0,
        count=lambda: one_class_counts(labels.astype(float), chosen[None]),
        scores=logits[None],
    )


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class, whichever others an image has: both (N, classes)."""
    return logits.sigmoid()


def targets(_study: Study, dataset: Dataset, device: str) -> Labels:
    """Return the label sets of a data set, on a device."""
    return Labels(torch.empty(0, device=device)).of(dataset)
