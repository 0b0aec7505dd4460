"""Baselines: scikit-learn's classifiers of little, fitted to the training images of a run.

What a group holds tells nothing where data have groups: no test image is of one that is trained on. So the
majority of all training images is the only majority.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from bench.core.runs import Arm, Purpose, RunSpec
from bench.data.dataset import Dataset, Split
from bench.strategies.registry import tuned_strategy
from bench.study.metrics import METRICS
from bench.training.cached_features import Features
from bench.training.linear_probe import frozen_features
from bench.training.problem import TrainingProblem
from bench.training.setup import TrainingSetup

NEIGHBOURS = (1, 5, 20)  # of which the best on val is taken
TREES = 500
BINS, CELLS = 32, 4  # of a channel's histogram; a side of the cube of colours
SMALLEST = 1e-9  # probability, of which there is a logarithm
PROBE = "linear_probe"  # the strategy whose head sees the frozen features


@dataclass(frozen=True, eq=False)
class Sight:
    """What a baseline sees.

    Args:
        of: from N images to what it sees of them: shape (N, F).
        features: where that is read, if it is stored.
    """

    of: Callable[[np.ndarray], np.ndarray]
    features: Features | None = None


@dataclass(frozen=True, eq=False)
class FittedBaseline:
    """A baseline that is fitted to the training images of a run.

    Args:
        classifier: scikit-learn's.
        sight: what it sees of images.
        classes: how many there are.
        device: where predictions are wanted.
    """

    classifier: Any
    sight: Sight
    classes: int
    device: str

    def predict(self, indices: np.ndarray) -> Tensor:
        """Return log-probabilities of images `indices`: float32, shape (N, classes)."""
        found = self.classifier.predict_proba(self.sight.of(indices))
        every = np.full((len(indices), self.classes), SMALLEST)
        every[:, self.classifier.classes_] = found.clip(SMALLEST)
        return torch.from_numpy(np.log(every)).float().to(self.device)


def fit(name: str, setup: TrainingSetup, parts: Split, seed: int) -> FittedBaseline:
    """Fit a baseline to the training images; where several are candidates, the best on val is returned.

    Args:
        name: of the baseline.
        setup: with a head that reads pooled features; of the study, whose metric chooses.
        parts: of the data set, for the seed.
        seed: of the run.
    """
    sight, labels = SIGHTS[name](setup, parts, seed), setup.dataset.labels[parts.train]
    seen = sight.of(parts.train)
    fitted = [
        FittedBaseline(classifier.fit(seen, labels), sight, len(setup.dataset.classes), setup.device)
        for classifier in CANDIDATES[name](seed, len(labels))
    ]
    if len(fitted) == 1:
        return fitted[0]
    metric = METRICS[setup.study.metric]

    def rank(one: FittedBaseline) -> float:
        scores = setup.targets.score(one.predict(parts.val), parts.val, (metric.name,))
        return metric.sign * scores[metric.name]

    return max(fitted, key=rank)


def features_problem(setup: TrainingSetup, parts: Split, seed: int) -> TrainingProblem:
    """Return the problem of a linear probe, whose inputs are the frozen features."""
    params = tuned_strategy(PROBE, setup.study).defaults
    return setup.problem(RunSpec(Arm(setup.study.name, PROBE, {}), params, seed, Purpose.FINAL), parts)


def colours(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Return how often colours occur in images: of each channel, and all three together; (N, F), float64."""
    found = []
    for index in indices:
        pixels = dataset.images[index].reshape(-1, 3).astype(np.int64)
        channels = [np.bincount(channel * BINS // 256, minlength=BINS) for channel in pixels.T]
        cube = np.ravel_multi_index(tuple((pixels * CELLS // 256).T), (CELLS,) * 3)
        found.append(np.concatenate([*channels, np.bincount(cube, minlength=CELLS**3)]) / len(pixels))
    return np.stack(found)


def _nothing(_setup: TrainingSetup, _parts: Split, _seed: int) -> Sight:
    return Sight(lambda indices: np.zeros((len(indices), 1)))


def _colours(setup: TrainingSetup, _parts: Split, _seed: int) -> Sight:
    return Sight(lambda indices: colours(setup.dataset, indices))


def _features(setup: TrainingSetup, parts: Split, seed: int) -> Sight:
    problem = features_problem(setup, parts, seed)
    stored = problem.inputs if isinstance(problem.inputs, Features) else None
    return Sight(lambda indices: frozen_features(problem, indices).cpu().numpy(), stored)


SIGHTS: Mapping[str, Callable[[TrainingSetup, Split, int], Sight]] = {
    "majority": _nothing,
    "colour_histogram": _colours,
    "nearest_neighbours": _features,
}
CANDIDATES: Mapping[str, Callable[[int, int], list[Any]]] = {  # from a seed and the number of training images
    "majority": lambda _seed, _images: [DummyClassifier(strategy="prior")],
    "colour_histogram": lambda seed, _images: [ExtraTreesClassifier(TREES, random_state=seed)],
    "nearest_neighbours": lambda _seed, images: [
        KNeighborsClassifier(count, metric="cosine", weights="distance")
        for count in NEIGHBOURS
        if count <= images
    ],
}
