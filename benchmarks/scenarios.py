"""Measure whether the packaged scenarios are experiments: frozen features beside what sees only colour.

    python -m benchmarks.scenarios         some minutes on two cores; only classifiers are fitted

For each study of classification on packaged data, with its own sizes, metric and final seeds: a linear probe
and nearest neighbours on frozen features, beside what can be told from colours alone, or from how common the
classes are. What a group holds tells nothing where data have groups: no test image is of one that is trained
on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench.core.registry import Registry
from bench.core.runs import Purpose, RunSpec
from bench.data.dataset import Dataset
from bench.data.sources.base import SOURCES
from bench.experiment.plan import Plan, plan
from bench.strategies.registry import STRATEGIES
from bench.study.loading import available, load
from bench.training.linear_probe import frozen_features
from bench.training.problem import TrainingProblem
from bench.training.setup import Compute, TrainingSetup

AHEAD = 0.1  # by which frozen features are to be ahead of the best that sees no more than colours
STRENGTHS = np.logspace(-4, -1, 4)  # C of the probe on standardised features, chosen on val
MOST_ITERATIONS = 200
SEEDS = 3
PROBE, FROZEN = "linear probe", ("linear probe", "nearest_neighbours")
NEIGHBOURS = 5
TREES = 500
BINS, CELLS = 32, 4  # of a channel's histogram; a side of the cube of colours
_SMALLEST = 1e-9  # probability


@dataclass(frozen=True, eq=False)
class Baseline:
    """A classifier of little.

    Args:
        name: as tables have it.
        summary: one line.
        sees: from a problem on frozen features, the data and N images to what it sees: float, shape (N, F).
        classifier: from a seed to one of scikit-learn's.
    """

    name: str
    summary: str
    sees: Callable[[TrainingProblem, Dataset, np.ndarray], np.ndarray]
    classifier: Callable[[int], Any]


def predict(baseline: Baseline, problem: TrainingProblem, dataset: Dataset, indices: np.ndarray) -> Tensor:
    """Return log-probabilities of images `indices`: float32, shape (N, classes).

    Args:
        baseline: it is fitted to the training images.
        problem: of a strategy that trains nothing but a head: its inputs are frozen features.
        dataset: what the problem is of.
        indices: of images.
    """
    classifier = baseline.classifier(problem.seed)
    train = problem.train
    classifier.fit(baseline.sees(problem, dataset, train), problem.labels[train].cpu().numpy())
    found = classifier.predict_proba(baseline.sees(problem, dataset, indices))
    every = np.full((len(indices), len(dataset.classes)), _SMALLEST)
    every[:, classifier.classes_] = found.clip(_SMALLEST)
    return torch.from_numpy(np.log(every)).float().to(problem.labels.device)


def colours(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Return how often colours occur in images: of each channel, and all three together; (N, F), float64."""
    found = []
    for index in indices:
        pixels = dataset.images[index].reshape(-1, 3).astype(np.int64)
        channels = [np.bincount(channel * BINS // 256, minlength=BINS) for channel in pixels.T]
        cube = np.ravel_multi_index(tuple((pixels * CELLS // 256).T), (CELLS,) * 3)
        found.append(np.concatenate([*channels, np.bincount(cube, minlength=CELLS**3)]) / len(pixels))
    return np.stack(found)


def _majority(_seed: int) -> Any:
    return DummyClassifier(strategy="prior")


def _trees(seed: int) -> Any:
    return ExtraTreesClassifier(TREES, random_state=seed)


def _neighbours(_seed: int) -> Any:
    return KNeighborsClassifier(NEIGHBOURS, metric="cosine", weights="distance")


BASELINES: Registry[Baseline] = Registry("baseline")
BASELINES.add(
    Baseline(
        "majority",
        "the class that most training images have",
        lambda _problem, _dataset, indices: np.zeros((len(indices), 1)),
        _majority,
    )
)
BASELINES.add(
    Baseline(
        "colour_histogram",
        "extremely randomised trees (Geurts et al. 2006) on how often colours occur",
        lambda _problem, dataset, indices: colours(dataset, indices),
        _trees,
    )
)
BASELINES.add(
    Baseline(
        "nearest_neighbours",
        f"the {NEIGHBOURS} training images with the nearest frozen features, by cosine",
        lambda problem, _dataset, indices: frozen_features(problem, indices).cpu().numpy(),
        _neighbours,
    )
)


def main() -> None:
    """Print a line for each scenario."""
    for name, path in available().items():
        study = load(str(path), ["strategies=[linear_probe]"])
        if study.target.data in SOURCES and "/" not in study.target.data:
            scores = measure(plan(study))
            ahead = max(scores[who] for who in FROZEN) - max(
                value for who, value in scores.items() if who not in FROZEN
            )
            told = ", ".join(f"{who} {value:.3f}" for who, value in scores.items())
            met = "" if ahead >= AHEAD else f", less than {AHEAD}"
            print(
                f"{name}, {study.metric}: {told}; frozen features are ahead by {ahead:.3f}{met}", flush=True
            )


def measure(laid_out: Plan) -> dict[str, float]:
    """Return the test metric of the probe and of each baseline, mean over some final seeds."""
    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu", measures=False))
    found: dict[str, list[float]] = {name: [] for name in (PROBE, *BASELINES)}
    for seed in laid_out.seeds[:SEEDS]:
        spec = RunSpec(laid_out.arms[0], STRATEGIES["linear_probe"].defaults, seed, Purpose.FINAL)
        problem, test = setup.problem(spec, laid_out.splits[seed]), laid_out.splits[seed].test
        found[PROBE].append(probe(problem, test))
        for name, baseline in BASELINES.items():
            found[name].append(score(problem, predict(baseline, problem, laid_out.dataset, test), test))
    return {name: float(np.mean(values)) for name, values in found.items()}


def score(problem: TrainingProblem, predictions: torch.Tensor, indices: np.ndarray) -> float:
    """Return the study's metric of predictions for images `indices`."""
    return problem.targets.score(predictions, indices, (problem.metric,))[problem.metric]


def probe(problem: TrainingProblem, test: np.ndarray) -> float:
    """Return the test metric of a linear probe whose strength is chosen on val."""
    train, val, held_out = (
        frozen_features(problem, indices).cpu().numpy() for indices in (problem.train, problem.val, test)
    )
    labels, models = problem.labels[problem.train].cpu().numpy(), []
    for strength in STRENGTHS:
        solver = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
        models.append(make_pipeline(StandardScaler(), solver).fit(train, labels))

    def logits(model: Pipeline, features: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(model.predict_log_proba(features).clip(-50)).float()

    best = max(models, key=lambda model: score(problem, logits(model, val), problem.val))
    return score(problem, logits(best, held_out), test)


if __name__ == "__main__":
    main()
