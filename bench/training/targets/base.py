"""What every task's targets can do, and what a final run keeps of its predictions."""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from bench.core.runs import Scores
from bench.data.dataset import Dataset
from bench.study.schema import Study, Training


@dataclass(frozen=True, eq=False)
class PredictionRecord:
    """What a final run keeps of its predictions for the test images.

    Args:
        columns: of `predictions.csv`, by name.
        scores: what each class is ranked by; None where they are not kept.
        pictures: PNG files by name.
    """

    columns: Mapping[str, Sequence[object] | np.ndarray]
    scores: Scores | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def with_groups(self, dataset: Dataset, indices: np.ndarray) -> "PredictionRecord":
        """Return the same with a column `group`, if images have groups; `indices` are those it is of."""
        if (groups := dataset.groups_of(indices)) is None:
            return self
        by_image = dict(zip((dataset.names[i] for i in indices), groups, strict=True))
        column = [by_image[str(image)] for image in self.columns["image"]]
        return replace(self, columns={**self.columns, "group": column})


class Targets(Protocol):
    """The truth about all images, and what follows from it for logits."""

    def calibrated(
        self, predict: Callable[[np.ndarray], Tensor], val: np.ndarray
    ) -> tuple["Targets", dict[str, float]]:
        """Return the targets with what calibrates the predictions for images `val`, and that as numbers.

        Args:
            predict: returns the predictions for images; not called where nothing is to be calibrated.
            val: images that were not trained on.
        """

    @property
    def labels(self) -> Tensor:
        """The labels of all images, on the device: shape (N, ...); a ValueError where pixels have them."""

    def weighted(self, train: np.ndarray, power: float) -> "Targets":
        """Return the targets with weights of classes in the loss, by how many images of `train` they have.

        An image of a class of n counts for n ** -power, times what makes the mean over `train` 1.
        """

    def of(self, dataset: Dataset) -> "Targets":
        """Return the same of the images of another data set that has the same classes."""

    def weights_of(self, labels: Tensor) -> Tensor | None:
        """Return what images with these labels count for in the loss, shape (B,); None: all count alike."""

    def loss(self, logits: Tensor, indices: np.ndarray, seed: int, epoch: int, training: Training) -> Tensor:
        """Return the loss of the logits of what images `indices` show in an epoch of a seed."""

    def losses(self, logits: Tensor, labels: Tensor, training: Training) -> Tensor:
        """Return the loss of each image, unweighted: logits (B, classes), labels (B, ...) to (B,)."""

    def predictions(self, logits: Tensor, indices: np.ndarray) -> Tensor:
        """Return what is kept of the logits of evaluation views: a row for each image."""

    def score(
        self, predictions: Tensor, indices: np.ndarray, metrics: Collection[str] = ()
    ) -> dict[str, float]:
        """Return of kept predictions the loss, the metrics that cost nothing, and those named."""

    def record(
        self,
        dataset: Dataset,
        predictions: Tensor,
        indices: np.ndarray,
        logits_of: Callable[[np.ndarray], Tensor],
    ) -> PredictionRecord:
        """Return what is kept of the predictions for images `indices`; `logits_of` computes some again."""


def probabilities_of(task: str) -> Callable[[Tensor], Tensor]:
    """Return what makes probabilities of a task's logits: that of the module of its name."""
    found: Callable[[Tensor], Tensor] = importlib.import_module(
        f"bench.training.targets.{task}"
    ).probabilities
    return found


def targets_of(study: Study, dataset: Dataset, device: str) -> Targets:
    """Return the targets of a study's task: those of the module of its name."""
    module = importlib.import_module(f"bench.training.targets.{study.task}")
    targets: Targets = module.targets(study, dataset, device)
    return targets
