"""Label efficiency: accuracy against the number of training labels, and where a strategy overtakes.

The sizes are nested subsets of one pool, with the same validation and test images, so that all sizes are
resampled together: images within strata, and seeds, n - 1 out of n of each (see `bootstrap`). Both at once
counts their interaction twice: the intervals of crossovers are rather too wide than too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from bench.analysis.evidence import (
    Evidence,
    canonical,
)
from bench.analysis.predictions.base import Predictions, read
from bench.analysis.statistics import resampled
from bench.analysis.statistics import strata as strata_of
from bench.analysis.variance import (
    DRAWS,
    LEVEL,
    Crossed,
    Difference,
    Estimate,
)
from bench.study.metrics import METRICS, Metric, ShareRight

REFERENCE = "feature_extractor"  # the frozen backbone
Outcome = Literal["crosses", "ahead throughout", "none in range", "unknown"]


@dataclass(frozen=True)
class Point:
    """What a strategy reached with so many labels. None: no run is done, or no predictions are stored."""

    strategy: str
    labels: int
    test: Estimate | None


@dataclass(frozen=True)
class Lead:
    """By how much a strategy is ahead of the reference with so many labels: paired by seed and test image.

    The interval is that of one size alone. None: no seed is done in both, or no predictions are stored.
    """

    strategy: str
    reference: str
    labels: int
    difference: Difference | None


@dataclass(frozen=True)
class Crossover:
    """From how many labels on a strategy's mean is above the reference's, up to the largest size.

    Args:
        labels: interpolated on a logarithmic scale; None unless it crosses.
        low, high: 95 % interval. A low of 0 says below the smallest size; a high of None says none in range.
        seeds: in the comparison, at every size.
    """

    strategy: str
    reference: str
    outcome: Outcome
    labels: float | None
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Efficiency:
    """All that a report on label efficiency says, as data."""

    study: str
    question: str
    metric: str
    sizes: tuple[int, ...]
    points: tuple[Point, ...]
    leads: tuple[Lead, ...]
    crossovers: tuple[Crossover, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types, with each crossover in words."""
        said = [asdict(c) | {"words": self.words(c)} for c in self.crossovers]
        return asdict(self) | {"crossovers": said}

    def of(self, strategy: str) -> list[Point]:
        """Return a strategy's points, by size."""
        return [point for point in self.points if point.strategy == strategy]

    @property
    def strategies(self) -> list[str]:
        """All strategies, in canonical order."""
        return canonical(point.strategy for point in self.points)

    def words(self, crossover: Crossover) -> str:
        """Return a crossover as a sentence."""
        who, other = crossover.strategy, crossover.reference
        first, last = (f"{size:,}" for size in (self.sizes[0], self.sizes[-1]))
        if crossover.outcome == "unknown":
            return f"{who} and {other}: no seed is done at every size, so there is nothing to compare."
        interval = self.interval(crossover)
        sure = crossover.high is not None
        if crossover.outcome == "none in range":
            opening = f"{who} against {other}: none in range"
            return f"{opening}; up to {last} labels its mean is not ahead for good{interval}."
        if crossover.outcome == "crosses" and sure:
            return f"{who} is ahead of {other} from about {crossover.labels:,.0f} labels on{interval}."
        if sure:
            return f"{who} is ahead of {other} at every size from {first} to {last} labels{interval}."
        if crossover.labels is None:
            where = f"is above that of {other} at every size from {first} to {last} labels"
        else:
            where = f"overtakes that of {other} at about {crossover.labels:,.0f} labels"
        doubt = f"up to {last} labels {who} is not shown to stay ahead"
        return f"The mean of {who} {where}{interval}; {doubt}."

    def interval(self, crossover: Crossover) -> str:
        """Return a crossover's interval with a blank in front; nothing where all resamples say the same."""
        if crossover.low is None or crossover.high == 0:
            return ""
        return f" [{self.bound(crossover.low)}, {self.bound(crossover.high)}]"

    def bound(self, labels: float | None) -> str:
        """Return an end of a crossover's interval."""
        if labels is None:
            return "none in range"
        return f"below {self.sizes[0]:,}" if labels == 0 else f"{labels:,.0f}"


def efficiency(
    by_size: Mapping[int, Evidence], reference: str = REFERENCE, draws: int = DRAWS, seed: int = 0
) -> Efficiency:
    """Return what studies that differ only in their number of training labels say together.

    Args:
        by_size: number of training labels to evidence.
        reference: what the others are to cross.
        draws: number of resamples.
        seed: of the random numbers; the same gives the same.
    """
    sizes = sorted(by_size)
    study = by_size[sizes[0]].study
    metric, statistic = METRICS[study.metric], METRICS[study.metric].statistic
    if not isinstance(statistic, ShareRight):  # refused before any training: see `with_labels`
        raise TypeError(f"crossovers are unknown for {metric.label}")
    found = {size: read(by_size[size]) for size in sizes}
    crossed = {size: _crossed(found[size], metric, draws, seed) for size in sizes}
    strategies = canonical(name for size in sizes for name in by_size[size].strategies)
    points = tuple(
        Point(name, size, _estimate(found[size], crossed[size], name))
        for name in strategies
        for size in sizes
    )
    pairs = [(name, reference) for name in strategies if name != reference and reference in strategies]
    leads = tuple(
        Lead(*pair, size, _difference(found[size], crossed[size], pair)) for pair in pairs for size in sizes
    )
    crossovers = tuple(_crossover(found, pair, statistic, draws, seed) for pair in pairs)
    notes = [f"{size:,} labels: {line}." for size in sizes for line in by_size[size].lacking]
    if reference not in strategies:
        notes.append(f"{reference} is not among the strategies, so there is nothing to cross.")
    return Efficiency(
        study.name, study.question, study.metric, tuple(sizes), points, leads, crossovers, tuple(notes)
    )


def crossing(sizes: Sequence[float], differences: np.ndarray) -> np.ndarray:
    """Return from which size on each row of differences is positive for good, interpolated in log size.

    Args:
        sizes: increasing, length K.
        differences: shape (D, K).

    Returns:
        Shape (D,): 0 where all differences are positive, infinity where the last one is not.
    """
    logs = np.log(np.asarray(sizes, dtype=float))
    result = np.zeros(len(differences))
    for place, (low, high) in enumerate(pairwise(range(len(sizes)))):
        before, after = differences[:, low], differences[:, high]
        turns = (before <= 0) & (after > 0)
        share = -before[turns] / (after[turns] - before[turns])
        result[turns] = np.exp(logs[place] + share * (logs[place + 1] - logs[place]))
    result[differences[:, -1] <= 0] = np.inf
    return result


def _crossed(found: Predictions, metric: Metric, draws: int, seed: int) -> Crossed | None:
    if not found.rows or not found.images:
        return None
    return resampled(metric, found, draws, seed)


def _estimate(found: Predictions, crossed: Crossed | None, strategy: str) -> Estimate | None:
    rows = [row for (name, _), row in found.rows.items() if name == strategy]
    return crossed.estimate(rows) if crossed and rows else None


def _difference(found: Predictions, crossed: Crossed | None, pair: tuple[str, str]) -> Difference | None:
    """Return the first of a pair of strategies minus the second, on the seeds that both have."""
    one, other = ({seed: row for (name, seed), row in found.rows.items() if name == mine} for mine in pair)
    seeds = sorted(set(one) & set(other))
    if crossed is None or not seeds:
        return None
    return crossed.difference([one[s] for s in seeds], [other[s] for s in seeds])


def _crossover(
    found: Mapping[int, Predictions], pair: tuple[str, str], statistic: ShareRight, draws: int, seed: int
) -> Crossover:
    """Return where the first of a pair of strategies overtakes the second."""
    paired = _paired(found, pair)
    if paired is None:
        return Crossover(*pair, "unknown", None, None, None, 0)
    differences, targets = paired  # (sizes, seeds, images)
    strata = strata_of(targets, statistic)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    point = float(crossing(list(found), _means(differences, groups)[None])[0])
    generator = np.random.default_rng([seed, 2])
    seeds = _weights(generator, draws, differences.shape[1])
    resampled = np.zeros((draws, len(differences)))
    for group in groups:
        images = _weights(generator, draws, len(group))
        each = np.tensordot(images, differences[:, :, group], axes=(1, 2))  # (draws, sizes, seeds)
        resampled += np.einsum("dks,ds->dk", each, seeds) / len(groups)
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.quantile(crossing(list(found), resampled), tails, method="inverted_cdf")
    outcome: Outcome = "crosses" if 0 < point < np.inf else "none in range" if point else "ahead throughout"
    return Crossover(
        *pair,
        outcome,
        point if outcome == "crosses" else None,
        None if np.isinf(low) else float(low),
        None if np.isinf(high) else float(high),
        differences.shape[1],
    )


def _paired(found: Mapping[int, Predictions], pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return differences in correctness (sizes, seeds, images) and the targets, of what all sizes have."""
    seeds = set.intersection(
        *({s for name, s in a.rows if name == strategy} for a in found.values() for strategy in pair)
    )
    images = sorted(set.intersection(*(set(a.images) for a in found.values())))
    if not seeds or not images:
        return None
    parts = []
    for a in found.values():
        column = {name: place for place, name in enumerate(a.images)}
        columns = [column[name] for name in images]
        rows = [[a.rows[strategy, s] for s in sorted(seeds)] for strategy in pair]
        parts.append(a.correct[np.ix_(rows[0], columns)] - a.correct[np.ix_(rows[1], columns)])
    return np.stack(parts), a.targets[columns]


def _means(differences: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean difference at each size: over seeds, and over strata of the mean within."""
    return np.asarray(np.mean([differences[:, :, g].mean(axis=(1, 2)) for g in groups], axis=0))


def _weights(generator: np.random.Generator, draws: int, count: int) -> np.ndarray:
    """Return resamples of count - 1 out of count: weights with sum 1, shape (draws, count)."""
    if count == 1:
        return np.ones((draws, 1))
    return generator.multinomial(count - 1, np.full(count, 1 / count), size=draws) / (count - 1)
