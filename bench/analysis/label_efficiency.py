"""Label efficiency: accuracy against the number of training labels, and where a strategy overtakes.

The sizes are nested subsets of one pool, with the same seeds and test images: a difference between two sizes,
interpolated, is a difference like those at the sizes. The interval of a crossover holds the sizes at which it
is shown neither to be positive nor to be negative (Fieller 1954, J. R. Stat. Soc. B 16: a test turned round).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from bench.analysis.evidence import (
    Evidence,
    canonical,
)
from bench.analysis.predictions.base import Predictions, read
from bench.analysis.spread import spread_of
from bench.analysis.statistics import measured, sample_of, shares
from bench.analysis.variance import (
    LEVEL,
    Crossed,
    Difference,
    Estimate,
    Sample,
)
from bench.study.metrics import METRICS, Metric, ShareRight

REFERENCE = "feature_extractor"  # the frozen backbone
STEPS = 200  # between two sizes, at which a difference is looked at
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
        low, high: 95 % interval. A low of 0 says below the smallest size; a high of None above the largest.
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
    smoke: bool = False  # a smoke test: where strategies cross is not asked

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
            return f"Up to {last} labels the mean of {who} does not stay above that of {other}{interval}."
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

    @property
    def story(self) -> str:
        """What the sizes say, in a sentence: who is shown to be ahead of the reference, and from where on."""
        if not self.crossovers:
            return ""
        last, other = f"{self.sizes[-1]:,}", self.crossovers[0].reference
        ahead = {"crosses", "ahead throughout"}
        shown = [c for c in self.crossovers if c.high is not None and c.outcome in ahead]
        if not shown:
            return f"Up to {last} labels, nothing is shown to stay ahead of {other}."
        first = min(shown, key=lambda crossover: crossover.labels or 0)
        if first.labels is None:
            sizes = f"from {self.sizes[0]:,} labels to {last}"
            return f"{first.strategy} is ahead of {other} at every size, {sizes}."
        return f"From about {first.labels:,.0f} labels on, {first.strategy} is ahead of {other}."

    def interval(self, crossover: Crossover) -> str:
        """Return a crossover's interval with a blank in front; nothing where there is no doubt."""
        if crossover.low is None or crossover.high == 0:
            return ""
        return f" [{self.bound(crossover.low)}, {self.bound(crossover.high)}]"

    def bound(self, labels: float | None) -> str:
        """Return an end of a crossover's interval."""
        if labels is None:
            return f"above {self.sizes[-1]:,}"
        return f"below {self.sizes[0]:,}" if labels == 0 else f"{labels:,.0f}"


def efficiency(by_size: Mapping[int, Evidence], reference: str = REFERENCE) -> Efficiency:
    """Return what studies that differ only in their number of training labels say together.

    Args:
        by_size: number of training labels to evidence.
        reference: what the others are to cross.
    """
    sizes = sorted(by_size)
    study = by_size[sizes[0]].study
    metric, statistic = METRICS[study.metric], METRICS[study.metric].statistic
    if not isinstance(statistic, ShareRight):  # refused before any training: see `with_labels`
        raise TypeError(f"crossovers are unknown for {metric.label}")
    found = {size: read(by_size[size]) for size in sizes}
    crossed = {size: _crossed(found[size], metric, by_size[size].overlap) for size in sizes}
    strategies = canonical(name for size in sizes for name in by_size[size].strategies)
    points = tuple(
        Point(name, size, _estimate(found[size], crossed[size], name))
        for name in strategies
        for size in sizes
    )
    pairs = [(name, reference) for name in strategies if name != reference and reference in strategies]
    leads = tuple(
        Lead(*pair, size, _difference(found[size], crossed[size], pair, study.smallest_effect))
        for pair in pairs
        for size in sizes
    )
    overlap = max(evidence.overlap for evidence in by_size.values())
    crossovers = tuple(_crossover(found, pair, statistic, overlap) for pair in pairs)
    notes = [f"{size:,} labels: {line}." for size in sizes for line in by_size[size].lacking]
    if reference not in strategies:
        notes.append(f"{reference} is not among the strategies, so there is nothing to cross.")
    whole = Efficiency(
        study.name, study.question, study.metric, tuple(sizes), points, leads, crossovers, tuple(notes)
    )
    smoke = any(evidence.budget == "smoke" for evidence in by_size.values())
    return replace(whole, leads=(), crossovers=(), smoke=True) if smoke else whole


def crossing(sizes: Sequence[float], differences: np.ndarray) -> float:
    """Return from which size on the difference is positive for good, interpolated in log size.

    Args:
        sizes: increasing, length K.
        differences: shape (K,).

    Returns:
        0 where all differences are positive, infinity where the last one is not.
    """
    if differences[-1] <= 0:
        return float("inf")
    below = np.flatnonzero(differences <= 0)
    if not len(below):
        return 0.0
    last = int(below[-1])
    before, after = differences[last : last + 2]
    logs = np.log(np.asarray(sizes, dtype=float))
    return float(np.exp(logs[last] - before / (after - before) * (logs[last + 1] - logs[last])))


def _crossed(found: Predictions, metric: Metric, overlap: float) -> Crossed | None:
    return measured(metric, found, overlap) if found.correct.size else None


def _estimate(found: Predictions, crossed: Crossed | None, strategy: str) -> Estimate | None:
    rows = [row for (name, _), row in found.rows.items() if name == strategy]
    return crossed.estimate(rows) if crossed and rows else None


def _difference(
    found: Predictions, crossed: Crossed | None, pair: tuple[str, str], margin: float
) -> Difference | None:
    """Return the first of a pair of strategies minus the second, on the seeds that both have."""
    one, other = ({seed: row for (name, seed), row in found.rows.items() if name == mine} for mine in pair)
    seeds = sorted(set(one) & set(other))
    if crossed is None or not seeds:
        return None
    return crossed.difference([one[s] for s in seeds], [other[s] for s in seeds], margin)


def _crossover(
    found: Mapping[int, Predictions], pair: tuple[str, str], statistic: ShareRight, overlap: float
) -> Crossover:
    """Return where the first of a pair of strategies overtakes the second."""
    paired = _paired(found, pair, statistic, overlap)
    if paired is None:
        return Crossover(*pair, "unknown", None, None, None, 0)
    differences, sample = paired
    values = np.stack([shares(at_size, sample)[0] for at_size in differences])  # (sizes, seeds)
    point = crossing(list(found), values.mean(axis=1))
    low, high = _interval(list(found), differences, sample)
    outcome: Outcome = "crosses" if 0 < point < np.inf else "none in range" if point else "ahead throughout"
    return Crossover(*pair, outcome, point if outcome == "crosses" else None, low, high, values.shape[1])


def _paired(
    found: Mapping[int, Predictions], pair: tuple[str, str], statistic: ShareRight, overlap: float
) -> tuple[np.ndarray, Sample] | None:
    """Return differences in correctness (sizes, seeds, images), and the images, of what all sizes have."""
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
    whole = sample_of(a, statistic, overlap)
    return np.stack(parts), Sample(whole.groups[columns], whole.strata[columns], overlap)


def _interval(
    sizes: Sequence[int], differences: np.ndarray, sample: Sample
) -> tuple[float | None, float | None]:
    """Return the ends of a crossover's interval: see `Crossover`.

    It begins after the last size at which the first strategy is shown to be behind, and ends where it is
    shown to be ahead from there on. All groups of images are one: nothing is shown.
    """
    places, signs = _shown(sizes, differences, sample)
    behind, not_ahead = np.flatnonzero(signs < 0), np.flatnonzero(signs <= 0)
    last = len(places) - 1
    low = 0.0 if not len(behind) else None if behind[-1] == last else float(places[behind[-1]])
    if not len(not_ahead):
        return low, 0.0
    return low, None if not_ahead[-1] == last else float(places[not_ahead[-1] + 1])


def _shown(sizes: Sequence[int], differences: np.ndarray, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return sizes close to each other, and the sign that a difference is shown to have there; 0: neither."""
    steps = np.arange((len(sizes) - 1) * STEPS + 1) / STEPS
    places = np.exp(np.interp(steps, np.arange(len(sizes)), np.log(sizes)))
    weights = np.maximum(0.0, 1 - np.abs(steps[:, None] - np.arange(len(sizes))))  # (places, sizes)
    measured_at = [shares(at_size, sample) for at_size in differences]
    values = weights @ np.stack([own for own, _ in measured_at])  # (places, seeds)
    sums = np.stack([sample.by_group(influence) for _, influence in measured_at])  # (sizes, seeds, groups)
    products = np.einsum("ksg,jtg->kjst", sums, sums, optimize=True)
    covariance = np.einsum("pk,pj,kjst->pst", weights, weights, products, optimize=True)
    spread = spread_of(values, covariance, sample.degrees, sample.overlap)
    means = values.mean(axis=1)
    sure = (2 * spread.tail(np.abs(means)) < 1 - LEVEL) & (sums.shape[2] > 1)
    return places, np.where(sure, np.sign(means), 0)
