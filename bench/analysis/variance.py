"""Means over seeds and test images, and paired differences, with intervals and tests in closed form.

A value of a run is linear in the images, or made so: its influence values say what each image adds to it
(Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 6). They are summed by group
of images that belong together, so that groups are what was sampled; what the groups give is the jackknife's
variance with a group left out at a time (MacKinnon, Nielsen and Webb 2023, J. Econometrics 232). From there
on it is the same for every metric: see `spread`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from bench.analysis.spread import Spread, spread_of

LEVEL = 0.95
LEAST_GROUPS = 10  # of test images, for a verdict: below, the spread of groups is hardly known


@dataclass(frozen=True, eq=False)
class Sample:
    """What all runs have in common: the test images, and how alike their training images are.

    Args:
        groups: int, shape (N,): which images belong together. Each by itself: they are independent.
        strata: int, shape (N,). The metric is the mean over strata of what is within: one stratum, or the
            classes of balanced accuracy.
        overlap: share of its training images that a seed has in common with another, 0 to 1.
    """

    groups: np.ndarray
    strata: np.ndarray
    overlap: float = 0.0

    @classmethod
    def independent(cls, images: int) -> "Sample":
        """Return a sample of images in one stratum that belong to nobody."""
        return cls(np.arange(images), np.zeros(images, int))

    def of(self, images: np.ndarray) -> "Sample":
        """Return a part of the images, as one stratum."""
        return Sample(self.groups[images], np.zeros(len(self.groups[images]), int), self.overlap)

    @property
    def weights(self) -> np.ndarray:
        """What each image counts for, shape (N,), with sum 1."""
        _, stratum, sizes = np.unique(self.strata, return_inverse=True, return_counts=True)
        return np.asarray(1 / (sizes[stratum] * len(sizes)))

    @property
    def grouped(self) -> bool:
        """Whether any images belong together."""
        return self.count < len(self.groups)

    def by_group(self, influence: np.ndarray) -> np.ndarray:
        """Return influence values summed by group, shape (R, N) to (R, G), for the jackknife's variance.

        The products of these sums are that variance: what leaving out a group changes, with (G - 1) / G, in
        each stratum. Of equal groups that is the usual G / (G - 1).
        """
        _, group = np.unique(self.groups, return_inverse=True)
        _, stratum, sizes = np.unique(self.strata, return_inverse=True, return_counts=True)
        pairs, pair, together = np.unique(
            group * len(sizes) + stratum, return_inverse=True, return_counts=True
        )
        share = together[pair] / sizes[stratum]  # of an image's stratum that is in its group
        count = np.bincount(pairs % max(1, len(sizes)), minlength=len(sizes))[stratum]
        alone = share == 1  # the sum of such a stratum is zero, whatever the factor
        factor = np.sqrt(1 - 1 / count) / np.where(alone, 1.0, 1 - share)
        return sums_by(group, influence * factor, self.count)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(np.unique(self.groups))

    @property
    def group_weights(self) -> np.ndarray:
        """What each group counts for, shape (G,), with sum 1."""
        return np.bincount(np.unique(self.groups, return_inverse=True)[1], self.weights)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of a variance between groups: of uneven ones fewer than there are.

        One less than the effective number, if groups differ as wholes: by the squares of their weights, as
        in Satterthwaite's formula (Carter, Schnepel and Steigerwald 2017, Rev. Econ. Stat. 99).
        """
        squares = self.group_weights**2
        return max(1.0, float(squares.sum() ** 2 / (squares**2).sum()) - 1) if len(squares) else 1.0


def sums_by(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the sums of what is in the same of `count` places, shape (R, N) to (R, count)."""
    return np.stack([np.bincount(place, row, count) for row in values])


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Args:
        seeds: how many seeds are in it. With one, the interval says nothing about other seeds.
        seed_share: share of the variance that more seeds would remove, 0 to 1.
    """

    value: float
    low: float
    high: float
    seeds: int
    seed_share: float


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95 % interval and p-values, before any correction.

    Args:
        low, high: both the value where nothing is known of the spread: see `Crossed`.
        p: two-sided: that there is no difference. None, as the others: the images are too few groups.
        p_below, p_above: one-sided: that the true difference is minus the margin or less; that it is the
            margin or more. Where both are small the difference is shown to lie within the margin.
        spread: the variance, by what it comes from; all zero where every image shows the same difference.
    """

    value: float
    low: float
    high: float
    p: float | None
    p_below: float | None
    p_above: float | None
    seeds: int
    spread: Spread

    def at_a_share(self, share: float) -> "Difference":
        """Return the same with its p-values divided by a share of the chance of a false alarm."""
        p, below, above = (
            None if p is None else min(1.0, p / share) for p in (self.p, self.p_below, self.p_above)
        )
        return replace(self, p=p, p_below=below, p_above=above)

    def reversed(self) -> "Difference":
        """Return the same with the sides swapped."""
        return replace(
            self,
            value=0.0 - self.value,
            low=0.0 - self.high,
            high=0.0 - self.low,
            p_below=self.p_above,
            p_above=self.p_below,
        )


@dataclass(frozen=True)
class Scale:
    """How the values of a metric are read.

    Args:
        sign: 1 where higher values are better, -1 where lower ones are.
        range: the lowest and the highest value there can be; either may be infinite.
        shares: whether they are shares of images that are right.
    """

    sign: int = 1
    range: tuple[float, float] = (0.0, 1.0)
    shares: bool = False

    @property
    def bounded(self) -> bool:
        """Whether there is a lowest and a highest value."""
        return bool(np.isfinite(self.range).all())

    def room(self, value: float) -> float:
        """Return p (1 - p) of the place p that a value has between the lowest and the highest."""
        low, high = self.range
        place = np.clip((value - low) / (high - low), 0.0, 1.0)
        return place * (1 - place)  # type: ignore[no-any-return]


class Crossed:
    """Values of R runs on the same N images.

    Where nothing varies, shares of images have exact bounds; other metrics have no interval, only the value.

    Args:
        values: of each run, shape (R,).
        influence: what each image adds to them, shape (R, N); the sums over images, within strata, are 0.
        sample: the images.
        scale: of the values.
    """

    def __init__(self, values: np.ndarray, influence: np.ndarray, sample: Sample, scale: Scale) -> None:
        self.values, self.sample, self.scale = values, sample, scale
        self.images = len(sample.groups)
        self.groups = sample.count
        self._influence = influence

    @cached_property
    def _covariance(self) -> np.ndarray:
        """Of the values of all runs, from the images; shape (R, R)."""
        sums = self.sample.by_group(self._influence)
        return np.asarray(sums @ sums.T)

    @property
    def decides(self) -> bool:
        """Whether there are groups of images enough for a verdict."""
        return self.groups >= LEAST_GROUPS

    def mean(self, rows: Sequence[int]) -> float:
        """Return the mean of some runs (row numbers)."""
        return float(self.values[list(rows)].mean())

    def estimate(self, rows: Sequence[int]) -> Estimate:
        """Return the mean of some runs of one strategy (row numbers) with its interval."""
        chosen = list(rows)
        covariance = self._covariance[np.ix_(chosen, chosen)]
        spread = spread_of(self.values[chosen], covariance, self.sample.degrees, self.sample.overlap)
        value = self.mean(chosen)
        low, high = self._interval(value, spread)
        return Estimate(value, low, high, len(chosen), spread.more_seeds)

    def _interval(self, value: float, spread: Spread) -> tuple[float, float]:
        """Return the interval of a mean: symmetric in log-odds where the metric has a range."""
        lowest, highest = self.scale.range
        if self.groups < 2:
            return lowest, highest
        if not self.scale.bounded:
            half = spread.quantile((1 - LEVEL) / 2)
            return value - half, value + half
        span, room = highest - lowest, self.scale.room(value)
        spread = spread.scaled(1 / span**2, 1 / span**2)
        if self.scale.shares:  # no more predictions are behind it than there are images and seeds
            spread = spread.at_least(room * float((self.sample.weights**2).sum()) / spread.seed_count)
        place = (value - lowest) / span
        if room and spread.total > 0:
            low, high = odds_interval(place, spread)
        else:
            low, high = self._wilson(place) if self.scale.shares else (place, place)
        return lowest + span * low, lowest + span * high

    def _wilson(self, place: float) -> tuple[float, float]:
        """Return Wilson's interval where all images are right, or all are wrong: of as many as groups."""
        from statsmodels.stats.proportion import proportion_confint

        size = 1 / float((self.sample.group_weights**2).sum())
        low, high = proportion_confint(place * size, size, 1 - LEVEL, method="wilson")
        return max(0.0, float(low)), min(1.0, float(high))

    def gap(self, rows: Sequence[int], others: Sequence[int]) -> tuple[float, float, float]:
        """Return a paired difference with its 95 % interval; `rows` and `others` are as in `difference`."""
        means, spread = self._paired(rows, others)
        return self._with_interval(means[0] - means[1], spread)

    def difference(self, rows: Sequence[int], others: Sequence[int], margin: float) -> Difference:
        """Return runs minus others, paired: `rows[k]` and `others[k]` share a seed, all share the images.

        The margin is the smallest difference that matters, above 0.
        """
        means, spread = self._paired(rows, others)
        p = dict.fromkeys(("p", "p_below", "p_above"))
        if self.decides:
            tests = self._tests if spread.total > 0 else self._exact_tests
            p = dict(zip(p, tests(means, spread, margin), strict=True))
        value, low, high = self._with_interval(means[0] - means[1], spread)
        return Difference(value, low, high, **p, seeds=len(list(rows)), spread=spread)

    def _paired(self, rows: Sequence[int], others: Sequence[int]) -> tuple[tuple[float, float], Spread]:
        """Return the means of two sides, and the spread of their difference."""
        sides = (list(rows), list(others))
        covariance = sum(
            (1 if one is other else -1) * self._covariance[np.ix_(one, other)]
            for one in sides
            for other in sides
        )
        values = self.values[sides[0]] - self.values[sides[1]]
        spread = spread_of(values, np.asarray(covariance), self.sample.degrees, self.sample.overlap)
        return (self.mean(sides[0]), self.mean(sides[1])), spread

    def _with_interval(self, value: float, spread: Spread) -> tuple[float, float, float]:
        if self.groups < 2:
            half = float("inf")
        elif spread.total > 0:
            half = spread.quantile((1 - LEVEL) / 2)
        else:  # every image shows the same difference: no exception in all groups (Clopper and Pearson 1934)
            half = 1 - ((1 - LEVEL) / 2) ** (1 / self.groups) if self.scale.shares else 0.0
        most = self.scale.range[1] - self.scale.range[0]
        return value, max(-most, value - half), min(most, value + half)

    def _tests(self, means: Sequence[float], spread: Spread, margin: float) -> tuple[float, ...]:
        """Return the p-values of no difference, of minus the margin or less, of the margin or more."""
        value = means[0] - means[1]
        below, above = (
            at_margin(spread, means, true, self.scale, self.sample.grouped) for true in (-margin, margin)
        )
        both = min(1.0, float(2 * spread.tail(abs(value))))
        return both, one_sided(value + margin, below), one_sided(margin - value, above)

    def _exact_tests(self, means: Sequence[float], _: Spread, margin: float) -> tuple[float, ...]:
        """Return the same where every image shows the same difference."""
        value = means[0] - means[1]
        if value == 0:  # no exception in all groups, of which a part as large as the margin had to be some
            unseen = max(0.0, 1 - margin) ** self.groups
            return 1.0, unseen, unseen
        sign_test = 2.0**-self.groups
        return 2 * sign_test, *((sign_test, 1.0) if value > 0 else (1.0, sign_test))


def one_sided(beyond: float, spread: Spread) -> float:
    """Return the p-value of a difference that is so far beyond what is tested; negative: on its side."""
    tail = np.asarray(spread.tail(np.abs(beyond)))
    p = np.where(np.asarray(beyond) > 0, tail, 1 - tail)
    return p if p.ndim else float(p)  # type: ignore[return-value]


def at_margin(spread: Spread, means: Sequence[float], margin: float, scale: Scale, grouped: bool) -> Spread:
    """Return the spread that a difference would have if it were the margin.

    Near the ends of its range a metric varies less. There a difference that is small by chance looks surer
    than it is, since one of the sides is nearer to the end by chance, and too many pairs would pass for
    equivalent: of accuracies of 0.97 and 0.95, in 19 groups, it is 8 % instead of 5. So one side is moved
    until the difference is the margin, and what varies more then is taken: independent images as p (1 - p),
    seeds and groups as its square, as if they differed by constants on the scale of log-odds.

    Args:
        spread: that was seen.
        means: of the two sides.
        margin: the difference that is tested, with its sign.
        scale: of the values.
        grouped: whether any images belong together.
    """
    if not scale.bounded:
        return spread
    one, other = means
    seen = np.maximum(scale.room(one) + scale.room(other), 1e-6)
    moved = np.maximum(
        scale.room(one) + scale.room(one - margin), scale.room(other) + scale.room(other + margin)
    )
    factor = np.maximum(1.0, moved / seen)
    return spread.scaled(factor**2, factor**2 if grouped else factor)


def odds_interval(place: float, spread: Spread) -> tuple[float, float]:
    """Return the interval of a mean between 0 and 1, symmetric in the logarithm of its odds.

    It stays within 0 and 1 and is longer towards the middle, as is usual for shares in surveys, whose
    respondents come in groups (Korn and Graubard 1998, Surv. Methodol. 24).
    """
    centre, room = log_odds(place, spread), place * (1 - place)
    half = spread.quantile((1 - LEVEL) / 2) / room
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def log_odds(place: float, spread: Spread) -> float:
    """Return the logarithm of the odds, half a right and half a wrong prediction added (Haldane 1956).

    Added to the effective number of predictions: so many independent ones would have this spread.
    """
    size = place * (1 - place) / spread.total
    return special.logit((place * size + 0.5) / (size + 1))
