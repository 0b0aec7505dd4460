"""A class for each image: cross-entropy, and the logits as predictions."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.analysis.predictions.base import Predictions
from bench.analysis.predictions.classification import one_class_counts
from bench.analysis.statistics import value
from bench.core.runs import Scores
from bench.data.dataset import Dataset
from bench.study.metrics import METRICS, Certainty, Ranking
from bench.study.schema import Study, Training
from bench.training.calibration import fit_temperature
from bench.training.metrics import score
from bench.training.targets.base import PredictionRecord

MOST_SCORES = 1_000_000  # 4 MB; where the study's metric needs them there is no limit


@dataclass(frozen=True, eq=False)
class Classes:
    """A class for each image.

    Args:
        labels: int64, shape (N,), of the whole data set, on the device.
        most_scores: of all images and classes up to which they are kept with the predictions.
        temperature: which calibrates the logits. None: the one that suits those that are asked about, as for
            val, which it is fitted to.
        class_weights: what an image of each class counts for in the loss, float32, shape (classes,), on the
            device. None: all count alike.
    """

    labels: Tensor
    most_scores: float = MOST_SCORES
    temperature: float | None = None
    class_weights: Tensor | None = None

    def weighted(self, train: np.ndarray, power: float) -> "Classes":
        """Return the same with classes weighted by how many images of `train` they have; see `Targets`."""
        labels = self.labels[train]
        counts = torch.bincount(labels, minlength=int(self.labels.max()) + 1)
        weights = counts.clamp(min=1).float() ** -power
        return replace(self, class_weights=weights / weights[labels].mean())

    def of(self, dataset: Dataset) -> "Classes":
        """Return the same, with its temperature, of the images of another data set."""
        return replace(self, labels=torch.from_numpy(dataset.labels).to(self.labels.device))

    def weights_of(self, labels: Tensor) -> Tensor | None:
        """Return the weight of each label's class; None where there are none."""
        return None if self.class_weights is None else self.class_weights[labels]

    def calibrated(
        self, predict: Callable[[np.ndarray], Tensor], val: np.ndarray
    ) -> tuple["Classes", dict[str, float]]:
        """Return the same with the temperature that is fitted to the logits of images `val`."""
        temperature = self._temperature(predict(val), val)
        return replace(self, temperature=temperature), {"temperature": temperature}

    def loss(
        self, logits: Tensor, indices: np.ndarray, _seed: int, _epoch: int, training: Training
    ) -> Tensor:
        """Return the mean cross-entropy, weighted if classes are, with the study's label smoothing."""
        if (weights := self.weights_of(self.labels[indices])) is not None:
            return (weights * self.losses(logits, self.labels[indices], training)).mean()
        return functional.cross_entropy(
            logits.float(), self.labels[indices], label_smoothing=training.label_smoothing
        )

    def losses(self, logits: Tensor, labels: Tensor, training: Training) -> Tensor:
        """Return the cross-entropy of each image, with the study's label smoothing."""
        return functional.cross_entropy(
            logits.float(), labels, label_smoothing=training.label_smoothing, reduction="none"
        )

    def predictions(self, logits: Tensor, _indices: np.ndarray) -> Tensor:
        """Return the logits, shape (B, classes)."""
        return logits.float()

    def score(
        self, predictions: Tensor, indices: np.ndarray, metrics: Collection[str] = ()
    ) -> dict[str, float]:
        """Return loss, accuracy, balanced accuracy, and the metrics named."""
        scores = score(predictions, self.labels[indices])
        if others := [name for name in metrics if name not in scores]:
            run = _one_run(predictions, self.labels[indices], lambda: self._certainty(predictions, indices))
            scores |= {name: value(METRICS[name], run) for name in others}
        return scores

    def record(
        self,
        dataset: Dataset,
        predictions: Tensor,
        indices: np.ndarray,
        _logits_of: Callable[[np.ndarray], Tensor],
    ) -> PredictionRecord:
        """Return a row for each image: its class, the class predicted, and that one's probability.

        That is the softmax of the logits as they are. With a temperature it is `calibrated_probability`, and
        `log_loss` is minus the logarithm of that of the true class, in nats.
        """
        logits = predictions.cpu().numpy()
        sure = self._certainty(predictions, indices)
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        images = [dataset.names[i] for i in indices]
        columns = {
            "image": images,
            "target": [dataset.classes[i] for i in dataset.labels[indices]],
            "prediction": [dataset.classes[i] for i in logits.argmax(1)],
            "probability": (shifted.max(1) / shifted.sum(1)).round(6),
            "calibrated_probability": sure.confidence[0].round(6),
            "log_loss": sure.log_loss[0].round(6),
        }
        if predictions.numel() > self.most_scores:
            return PredictionRecord(columns)
        scores = ranked_by(predictions).cpu().numpy()
        return PredictionRecord(columns, Scores(images, dataset.classes, scores))

    def _temperature(self, logits: Tensor, indices: np.ndarray) -> float:
        if self.temperature is not None:
            return self.temperature
        return fit_temperature(logits.cpu().numpy(), self.labels[indices].cpu().numpy())

    def _certainty(self, logits: Tensor, indices: np.ndarray) -> Certainty:
        """Return how sure a run is of its images, by calibrated probabilities; each array (1, N)."""
        logs = ranked_by(logits / self._temperature(logits, indices))
        of_truth = functional.nll_loss(logs, self.labels[indices], reduction="none")
        return Certainty(of_truth.cpu().numpy()[None], logs.max(1).values.exp().cpu().numpy()[None])


def _one_run(logits: Tensor, labels: Tensor, certainty: Callable[[], Certainty]) -> Predictions:
    """Return the predictions of a run, as statistics take them: of images that are shown by number."""
    truth, one_hot = labels.cpu().numpy(), np.eye(logits.shape[1])
    predicted = logits.argmax(1).cpu().numpy()
    return Predictions(
        rows={},
        correct=(predicted == truth).astype(float)[None],
        targets=truth,
        dropped=0,
        count=lambda: one_class_counts(one_hot[truth], one_hot[predicted][None]),
        scores=ranked_by(logits).cpu().numpy()[None],
        find_certainty=certainty,
    )


def ranked_by(logits: Tensor) -> Tensor:
    """Return what a class's images are ranked by: log-probabilities, which still differ close to 1."""
    return functional.log_softmax(logits.float(), 1)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of classes of which an image has one: both (N, classes)."""
    return logits.softmax(1)


def targets(study: Study, dataset: Dataset, device: str) -> Classes:
    """Return the classes of a data set, on a device."""
    ranks = isinstance(METRICS[study.metric].statistic, Ranking)
    limit = math.inf if ranks else MOST_SCORES
    return Classes(torch.from_numpy(dataset.labels).to(device), limit)
