"""A summary in words: who won and how sure, and what a reader must know before believing it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.analysis.comparisons import POWER, Comparison
from bench.analysis.errors_by_class import ClassResult
from bench.analysis.evidence import TEMPERATURE, Evidence
from bench.analysis.predictions.base import Predictions
from bench.analysis.results import Result, by_validation
from bench.analysis.spread import MOST_IN_COMMON
from bench.analysis.variance import LEAST_GROUPS, Crossed, Estimate
from bench.core.text import listed
from bench.study.metrics import METRICS, CalibrationError, LogLoss, Ratio, ShareRight
from bench.study.schema import Study
from bench.study.tasks import TASKS

SMOKE_TEST = (
    "Smoke test: it shows that everything works, and nothing else. After so little training, on so few "
    "images, its numbers say nothing about the strategies."
)
NEVER_FOUND = 0.005  # score below which a class is as good as never predicted


def verdict(
    results: Sequence[Result], comparisons: Sequence[Comparison], study: Study, crossed: Crossed | None
) -> str:
    """Return who won and how sure that is, in plain words."""
    best = next((result for result in results if result.place == "best"), None)
    if best is None:
        return "No final run is done, so there is nothing to compare."
    name, metric, test = best.strategy, METRICS[study.metric].label, best.test
    if test is None or crossed is None:
        return f"{name} is best by validation; its predictions are not stored, so nothing can be compared."
    if len(results) == 1:
        return f"{name}: {_measured(test, metric, crossed)} Nothing else was run to compare it with."
    opening = f"{name} is best by validation: {_measured(test, metric, crossed)}"
    if not crossed.decides:
        few = f"Fewer than {LEAST_GROUPS} {'groups of ' * crossed.sample.grouped}test images"
        return f"{opening} {few} allow an estimate, but no verdict."
    better, worse, equivalent, undecided = (
        [c.strategy for c in comparisons if c.relation == relation]
        for relation in ("better", "worse", "equivalent", "undecided")
    )
    closing = [
        f"On test it is worse than {listed(better)}." if better else "",
        f"It is better than {listed(worse)}." if worse else "",
        f"It is equivalent to {listed(equivalent)} within {study.smallest_effect:g}." if equivalent else "",
        f"Against {listed(undecided)} it is undecided." if undecided else "",
    ]
    return " ".join([opening, *filter(None, closing)])


def _measured(test: Estimate, metric: str, crossed: Crossed) -> str:
    of = f"{_count(test.seeds, 'seed')}, {_images(crossed)}"
    return f"test {metric} {test.value:.3f} [{test.low:.3f}, {test.high:.3f}] ({of})."


def _images(crossed: Crossed) -> str:
    images = _count(crossed.images, "test image")
    return f"{images} in {_count(crossed.groups, 'group')}" if crossed.sample.grouped else images


def notes_on(evidence: Evidence, predictions: Predictions, results: Sequence[Result]) -> tuple[str, ...]:
    """Return what a reader must know before believing the verdict."""
    notes = [*troubles(results)]
    if any(result.test and result.test.seeds == 1 for result in results):
        notes.append(
            "A strategy with a single seed: how much seeds differ is unknown, its interval and comparisons "
            "answer for the test images only."
        )
    unknown = evidence.done[[key not in predictions.rows for key in _keys(evidence.done)]]
    if len(unknown):
        named = ", ".join(f"{strategy} seed {seed}" for strategy, seed in _keys(unknown))
        notes.append(f"Runs without stored predictions, left out of intervals and comparisons: {named}.")
    if predictions.dropped:
        notes.append(f"{_count(predictions.dropped, 'test image')} left out: not every run has a prediction.")
    leaks = _leaks(evidence, predictions)
    return (
        *notes,
        *_temperatures(evidence),
        *_overlap(evidence),
        *_hardware(evidence),
        *leaks,
        *_ungrouped(evidence),
    )


def _temperatures(evidence: Evidence) -> list[str]:
    """Say how probabilities were calibrated, where the study's metric is of them."""
    statistic = METRICS[evidence.study.metric].statistic
    if not isinstance(statistic, LogLoss | CalibrationError) or TEMPERATURE not in evidence.done:
        return []
    means = evidence.done.groupby("strategy")[TEMPERATURE].mean().dropna()
    told = listed([f"{name} {means[name]:.2f}" for name in evidence.strategies if name in means])
    notes = [f"Temperatures that calibrate, fitted on validation (mean over seeds): {told}."]
    if isinstance(statistic, CalibrationError):
        notes.append(
            "A calibration error is above zero even where probabilities are right, the more so the fewer "
            "test images there are: it ranks strategies, but its size means little."
        )
    return notes


def troubles(results: Sequence[Result]) -> tuple[str, ...]:
    """Name the final runs that failed or are missing."""
    return tuple(_trouble(result) for result in results if result.failed or result.missing)


def _overlap(evidence: Evidence) -> list[str]:
    """Say how alike the training sets of seeds are, and what was done about it."""
    if not evidence.overlap or evidence.study.most_seeds < 2:
        return []
    if evidence.overlap == 1:
        return ["All seeds train on the same images: what is said holds for these, not for others."]
    share = f"Two seeds have {100 * evidence.overlap:.0f} % of their training images in common"
    if evidence.overlap > MOST_IN_COMMON:
        return [f"{share}: what is said holds for training on these images, not on others."]
    return [f"{share}, so they differ less than training sets do: intervals and tests make up for it."]


def _hardware(evidence: Evidence) -> list[str]:
    """Name different hardware: there the same run differs in its last digits, or by more."""
    kinds = evidence.provenance.get("different hardware", ())
    if len(kinds) < 2:
        return []
    where = f"Final runs were computed on {len(kinds)} kinds of hardware ({'; '.join(kinds)})"
    return [f"{where}: small differences may come from it, and seconds can't be compared."]


def _leaks(evidence: Evidence, predictions: Predictions) -> tuple[str, ...]:
    """Say how many images have a near-duplicate in an earlier part, and what the best has without them."""
    if not evidence.near_duplicates:
        return ()
    near = {image for image, part, *_ in evidence.near_duplicates if part == "test"}
    apart = np.array([image not in near for image in predictions.images], dtype=bool)
    best = next(iter(by_validation(evidence)), None)
    rows = [row for (name, _), row in predictions.rows.items() if name == best]
    without = ""
    if rows and apart.any() and not apart.all() and METRICS[evidence.study.metric].statistic == ShareRight():
        means = predictions.correct[rows].mean(), predictions.correct[rows][:, apart].mean()
        without = f" On the other test images {best} has {means[1]:.3f} instead of {means[0]:.3f}."
    return (f"Near-duplicates: {evidence.provenance['near-duplicates across parts']}.{without}",)


def _ungrouped(evidence: Evidence) -> list[str]:
    """Say why images may belong together that were taken for independent."""
    said = evidence.provenance.get("groups", "")
    return [f"Groups: {said}."] if isinstance(said, str) and said else []


def never_found(classes: Sequence[ClassResult], study: Study) -> tuple[str, ...]:
    """Name the classes that no strategy ever finds: an average hides them."""
    lost = [c.name for c in classes if c.recall and max(c.recall.values()) < NEVER_FOUND]
    statistic = METRICS[study.metric].statistic
    averaged = isinstance(statistic, Ratio) and not statistic.together
    if not lost:
        return ()
    counted = f" They count in the mean of all {len(classes)}." if averaged else ""
    score = TASKS[study.task].class_score
    return (f"Found by no strategy ({score} below {NEVER_FOUND:g}): {listed(lost)}.{counted}",)


def sensitivity(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Say how small a difference from the best a study like this one finds."""
    tested = [c for c in comparisons if c.p_adjusted is not None]
    sizes = sorted(c.minimum_detectable_effect for c in tested if c.minimum_detectable_effect is not None)
    if not tested:
        return ()
    if all(c.difference.spread.total <= 0 for c in tested):
        return ("No prediction for a test image differs, so which differences this study finds is unknown.",)
    if not sizes:
        return (f"A study as small as this finds no difference from the best with power {POWER:g}.",)
    least, most = f"{sizes[0]:.3f}", f"{sizes[-1]:.3f}"
    size = least if least == most else f"{least} to {most}, by strategy,"
    return (f"With this spread, a true difference from the best of {size} is found with power {POWER:g}.",)


def _trouble(result: Result) -> str:
    total = result.done + result.failed + result.missing
    parts = [
        f"{result.failed} failed" if result.failed else "",
        f"{result.missing} not run" if result.missing else "",
    ]
    reasons = f" ({'; '.join(result.errors)})" if result.errors else ""
    return f"{result.strategy}: of {_count(total, 'final run')} {listed([p for p in parts if p])}{reasons}."


def _keys(runs: pd.DataFrame) -> list[tuple[str, int]]:
    return [(str(strategy), int(seed)) for strategy, seed in zip(runs["strategy"], runs["seed"], strict=True)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
