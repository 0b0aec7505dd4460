"""A metric's definition applied to predictions: the value of each run, and what each image adds to it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.analysis.predictions.base import Predictions
from bench.analysis.rankings import rankings
from bench.analysis.variance import Crossed, Sample, Scale, sums_by
from bench.study.metrics import (
    CalibrationError,
    Certainty,
    Counts,
    LogLoss,
    Metric,
    Ranking,
    Ratio,
    ShareRight,
    Statistic,
)

Measured = tuple[np.ndarray, np.ndarray]  # values (R,), influence of the images (R, N)


def measured(metric: Metric, predictions: Predictions, overlap: float = 0.0) -> Crossed:
    """Return the metric of all runs.

    Args:
        metric: what is measured.
        predictions: of the runs.
        overlap: see `Sample`.

    Raises:
        ValueError: if nothing here knows the metric's statistic, or what it needs is not stored.
    """
    sample = sample_of(predictions, metric.statistic, overlap)
    values, influence = _built(metric.statistic, metric.name, predictions, sample)
    scale = Scale(metric.sign, metric.range, isinstance(metric.statistic, ShareRight))
    return Crossed(values, influence, sample, scale)


def value(metric: Metric, predictions: Predictions) -> float:
    """Return the metric of the first run."""
    return float(measured(metric, predictions).values[0])


def of_class(statistic: Ratio | Ranking, predictions: Predictions, place: int) -> Crossed:
    """Return the statistic of a single class."""
    one, counts = slice(place, place + 1), predictions.counts
    part = Counts(counts.truth[:, one], counts.predicted[:, :, one], counts.intersection[:, :, one])
    scores = None if predictions.scores is None else predictions.scores[:, :, one]
    only = replace(predictions, count=lambda: part, scores=scores)
    sample = sample_of(predictions, statistic)
    return Crossed(*_built(statistic, "a class", only, sample), sample, Scale())


def rows_of(predictions: Predictions, rows: list[int]) -> Predictions:
    """Return the same of some runs, which then come in this order."""
    counts, scores = predictions.counts, predictions.scores
    some = Counts(counts.truth, counts.predicted[rows], counts.intersection[rows])
    return replace(
        predictions,
        rows={},
        correct=predictions.correct[rows],
        count=lambda: some,
        scores=None if scores is None else scores[rows],
        find_certainty=lambda: _rows_of(predictions.certainty, rows),
    )


def _rows_of(certainty: Certainty, rows: list[int]) -> Certainty:
    return Certainty(certainty.log_loss[rows], certainty.confidence[rows])


def sample_of(predictions: Predictions, statistic: Statistic, overlap: float = 0.0) -> Sample:
    """Return the test images as a sample: by group, in the strata of a statistic."""
    strata = np.zeros(len(predictions.targets), int)
    if isinstance(statistic, ShareRight) and statistic.by_class:
        strata = np.unique(predictions.targets, return_inverse=True)[1]
    return Sample(predictions.groups, strata, overlap)


def shares(correct: np.ndarray, sample: Sample) -> Measured:
    """Return the share of images that are right, mean over strata: of R runs, shape (R, N)."""
    _, stratum, sizes = np.unique(sample.strata, return_inverse=True, return_counts=True)
    within = sums_by(stratum, correct, len(sizes)) / sizes
    return within.mean(axis=1), (correct - within[:, stratum]) * sample.weights


def _built(statistic: Statistic, name: str, predictions: Predictions, sample: Sample) -> Measured:
    build = BUILDERS.get(type(statistic))
    if build is None:
        raise ValueError(f"how sure a {type(statistic).__name__} is, is unknown: {name} is made of it")
    return build(statistic, predictions, sample)


def _shares(_: ShareRight, predictions: Predictions, sample: Sample) -> Measured:
    return shares(predictions.correct, sample)


def _ratios(statistic: Ratio, predictions: Predictions, _: Sample) -> Measured:
    """Return the mean over classes of a ratio of sums over images, linearised (the delta method).

    A class that no image shows in truth is left out of the mean; one that has nothing below the line is 0.
    """
    counts = predictions.counts
    if statistic.together:
        counts = Counts(
            counts.truth.sum(1, keepdims=True),
            counts.predicted.sum(2, keepdims=True),
            counts.intersection.sum(2, keepdims=True),
        )
    counted = counts.truth.sum(axis=0) > 0
    above, below = (part[..., counted] for part in np.broadcast_arrays(*statistic.parts(counts)))  # (R, N, K)
    sums = below.sum(axis=1)
    known = np.maximum(sums, np.finfo(float).tiny)
    ratios = above.sum(axis=1) / known
    added = (above - ratios[:, None] * below) / known[:, None]
    return ratios.sum(axis=1) / max(1, counted.sum()), added.sum(axis=2) / max(1, counted.sum())


def _rankings(statistic: Ranking, predictions: Predictions, _: Sample) -> Measured:
    if predictions.scores is None:
        raise ValueError("the scores of the classes are not stored, so images can't be ranked by them")
    return rankings(predictions.scores, predictions.counts.truth, statistic.credit)


def _log_losses(_: LogLoss, predictions: Predictions, sample: Sample) -> Measured:
    return shares(predictions.certainty.log_loss, sample)


def _calibration_errors(statistic: CalibrationError, predictions: Predictions, _: Sample) -> Measured:
    """Return the expected calibration error, linearised: each image is taken to stay in its bin.

    It is zero of no finite sample: where confidence is right but for chance, chance is what it measures. The
    interval is that of its mean over test sets as large as this one.
    """
    confidence = predictions.certainty.confidence
    excess, count = confidence - predictions.correct, confidence.shape[1]
    bins = np.ceil(confidence * statistic.bins).astype(int).clip(1, statistic.bins) - 1  # (low, high]
    sums = np.stack([np.bincount(*own, statistic.bins) for own in zip(bins, excess, strict=True)])
    values = np.abs(sums).sum(axis=1) / count
    added = np.take_along_axis(np.sign(sums), bins, axis=1) * excess
    return values, (added - values[:, None]) / count


BUILDERS: dict[type, Callable[[Any, Predictions, Sample], Measured]] = {
    ShareRight: _shares,
    Ratio: _ratios,
    Ranking: _rankings,
    LogLoss: _log_losses,
    CalibrationError: _calibration_errors,
}
