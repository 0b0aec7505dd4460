"""A metric's definition applied to predictions: its value, and what its interval resamples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.analysis.predictions.base import Predictions
from bench.analysis.rankings import CrossedRankings
from bench.analysis.variance import DRAWS, Crossed, CrossedRatios
from bench.study.metrics import Counts, Metric, Ranking, Ratio, ShareRight, Statistic


def resampled(metric: Metric, predictions: Predictions, draws: int = DRAWS, seed: int = 0) -> Crossed:
    """Return the metric of all runs, ready to be resampled.

    Raises:
        ValueError: if nothing here knows the metric's statistic, or what it needs is not stored.
    """
    crossed = _built(metric.statistic, metric.name, predictions, draws, seed)
    crossed.sign, crossed.range = metric.sign, metric.range
    return crossed


def value(metric: Metric, predictions: Predictions) -> float:
    """Return the metric of the first run; nothing is resampled."""
    return float(resampled(metric, predictions).values[0])


def of_class(statistic: Ratio | Ranking, predictions: Predictions, place: int, draws: int) -> Crossed:
    """Return the statistic of a single class, ready to be resampled."""
    one, counts = slice(place, place + 1), predictions.counts
    part = Counts(counts.truth[:, one], counts.predicted[:, :, one], counts.intersection[:, :, one])
    scores = None if predictions.scores is None else predictions.scores[:, :, one]
    only = Predictions(
        predictions.rows, predictions.correct, predictions.targets, 0, count=lambda: part, scores=scores
    )
    return _built(statistic, "a class", only, draws, 0)


def rows_of(predictions: Predictions, rows: list[int]) -> Predictions:
    """Return the same of some runs, which then come in this order."""
    counts, scores = predictions.counts, predictions.scores
    some = Counts(counts.truth, counts.predicted[rows], counts.intersection[rows])
    return Predictions(
        rows={},
        correct=predictions.correct[rows],
        targets=predictions.targets,
        dropped=predictions.dropped,
        images=predictions.images,
        classes=predictions.classes,
        count=lambda: some,
        scores=None if scores is None else scores[rows],
    )


def strata(targets: np.ndarray, statistic: ShareRight) -> np.ndarray:
    """Return the number of each image's stratum: its class, or one for all; shape (N,)."""
    if statistic.by_class:
        return np.unique(targets, return_inverse=True)[1]
    return np.zeros(len(targets), int)


def _built(statistic: Statistic, name: str, predictions: Predictions, draws: int, seed: int) -> Crossed:
    build = BUILDERS.get(type(statistic))
    if build is None:
        raise ValueError(f"how {type(statistic).__name__} is resampled is unknown, which {name} is made of")
    return build(statistic, predictions, draws, seed)


def _shares(statistic: ShareRight, predictions: Predictions, draws: int, seed: int) -> Crossed:
    return Crossed(predictions.correct, strata(predictions.targets, statistic), draws, seed)


def _ratios(statistic: Ratio, predictions: Predictions, draws: int, seed: int) -> Crossed:
    counts = predictions.counts
    if statistic.together:
        counts = Counts(
            counts.truth.sum(1, keepdims=True),
            counts.predicted.sum(2, keepdims=True),
            counts.intersection.sum(2, keepdims=True),
        )
    above, below = np.broadcast_arrays(*statistic.parts(counts))
    return CrossedRatios(above, below, counts.truth, draws, seed)


def _rankings(statistic: Ranking, predictions: Predictions, draws: int, seed: int) -> Crossed:
    if predictions.scores is None:
        raise ValueError("the scores of the classes are not stored, so images can't be ranked by them")
    return CrossedRankings(predictions.scores, predictions.counts.truth, statistic.credit, draws, seed)


BUILDERS: dict[type, Callable[[Any, Predictions, int, int], Crossed]] = {
    ShareRight: _shares,
    Ratio: _ratios,
    Ranking: _rankings,
}
