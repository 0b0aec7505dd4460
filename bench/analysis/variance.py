"""Uncertainty from seeds and test images together: the crossed bootstrap.

Every run (a seed) predicts every test image, so the two are crossed, not nested, and are resampled
independently of each other (the pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", Ann. Appl. Stat.
1(2); seeds and data as sources of variance: Bouthillier et al. 2021, "Accounting for variance in machine
learning benchmarks", MLSys). Taken as it is, that bootstrap counts the interaction of seeds and images
three times over and makes the variance of five seeds a fifth too small. So n - 1 are drawn out of n (Rao and
Wu 1988, JASA 83), which makes each part unbiased; the parts are told apart and put together as in
multi-reader multi-case studies, where readers are seeds (Gallas 2006, Acad. Radiol. 13); and Satterthwaite's
degrees of freedom answer for few seeds. With three seeds that differ much, intervals still cover a little
less than 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 5000
BLOCK = 1 << 22  # weights held in memory at a time
ROUNDING = 1e-15  # a variance below is that of rounding


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over seeds and images, by what was resampled.

    Args:
        seeds, images: when only seeds, only images are resampled; each contains the interaction once.
        interaction: of seeds with images.
        seed_count, image_count: how many there are; a single one has no variance to be seen.
    """

    seeds: float
    images: float
    interaction: float
    seed_count: int
    image_count: int

    @property
    def total(self) -> float:
        """Unbiased sum, never below either part (the estimate of a small difference may be)."""
        return max(self.seeds + self.images - self.interaction, self.seeds, self.images)

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom; infinite where there is no variance."""
        parts = ((self.seeds, self.seed_count), (self.images, self.image_count))
        below = sum(part**2 / (count - 1) for part, count in parts if count > 1)
        return self.total**2 / below if below > 0 else float("inf")


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
    """A paired difference with its 95 % interval and two-sided p-value, before any correction.

    Args:
        low, high: both the value where nothing is known of the spread: see `CrossedRatios`.
        error: its standard error; 0 where every image shows the same difference.
        degrees: of freedom of t; None where there is no variance.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int
    error: float
    degrees: float | None


class Crossed:
    """Scores of R runs on the same N images, resampled once for all that is asked of them.

    Args:
        correct: float, shape (R, N): 1 where the run is right on the image.
        strata: int, shape (N,). The metric is the mean over strata of the mean within: one stratum for
            accuracy, the classes for balanced accuracy. Images are resampled within strata.
        draws: number of resamples.
        seed: of the random numbers.
    """

    proportions = True  # the values are shares of independent predictions
    sign = 1  # of what is better: -1 where lower values are
    range = (0.0, 1.0)  # of the values
    values: np.ndarray  # of each run, shape (R,)

    def __init__(self, correct: np.ndarray, strata: np.ndarray, draws: int = DRAWS, seed: int = 0) -> None:
        self._groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
        self._draws, self._seed = draws, seed
        self.images = correct.shape[1]
        self.values = np.mean([correct[:, group].mean(axis=1) for group in self._groups], axis=0)
        self._correct = correct

    @cached_property
    def _resampled(self) -> np.ndarray:
        """The metric of each run under each resample of the images, shape (draws, R)."""
        return self._resample()

    @cached_property
    def effective_images(self) -> float:
        """Kish's effective sample size: N for accuracy, less for balanced accuracy of uneven classes."""
        return len(self._groups) ** 2 / sum(1 / len(group) for group in self._groups)

    def _most_effective(self, seeds: int) -> float:
        """Return how many predictions there can be at most behind a mean: those of all seeds."""
        return self.effective_images * seeds

    @property
    def _images_vary(self) -> bool:
        return any(len(group) > 1 for group in self._groups)

    def _resample(self) -> np.ndarray:
        correct, generator = self._correct, np.random.default_rng([self._seed, 0])
        result = np.zeros((self._draws, len(correct)))
        for group in self._groups:
            size = len(group)
            step = max(1, BLOCK // size)
            for start in range(0, self._draws, step):
                rows = min(step, self._draws - start)
                weights = image_weights(generator, rows, size)
                result[start : start + rows] += weights @ correct[:, group].T / len(self._groups)
        return result

    def _variance(self, values: np.ndarray, resampled: np.ndarray) -> Variance:
        """Split the variance of the mean of `values`, shape (S,), given their resamples, shape (draws, S)."""
        count = len(values)
        weights = _seed_weights(self._seed, self._draws, count)
        centre = values.mean()
        seeds = weights @ values - centre
        images = resampled.mean(axis=1) - centre
        both = np.einsum("ds,ds->d", weights, resampled) - centre
        parts = [float(np.var(part)) for part in (seeds, images, both - seeds - images)]
        seed_part, image_part, interaction = (part if part > ROUNDING else 0.0 for part in parts)
        return Variance(seed_part, image_part, interaction, count, self.images)

    def mean(self, rows: Sequence[int]) -> float:
        """Return the mean of some runs (row numbers)."""
        return float(self.values[list(rows)].mean())

    def estimate(self, rows: Sequence[int]) -> Estimate:
        """Return the mean of some runs of one strategy (row numbers) with its interval."""
        values = self.values[list(rows)]
        variance = self._variance(values, self._resampled[:, list(rows)])
        value = float(values.mean())
        low, high = self._interval(value, variance)
        share = variance.seeds / variance.total if variance.total else 0.0
        return Estimate(value, low, high, len(values), min(1.0, share))

    def _interval(self, value: float, variance: Variance) -> tuple[float, float]:
        """Return the score interval, of the value's place between the lowest and the highest there can be."""
        lowest, span = self.range[0], self.range[1] - self.range[0]
        place = replace(
            variance,
            seeds=variance.seeds / span**2,
            images=variance.images / span**2,
            interaction=variance.interaction / span**2,
        )
        low, high = self._score_interval((value - lowest) / span, place)
        return lowest + span * low, lowest + span * high

    def _score_interval(self, value: float, variance: Variance) -> tuple[float, float]:
        """Wilson's score interval at the effective sample size, with t for z.

        It stays within 0 and 1 and has a width when every answer is right (Franco et al. 2019, "Comparative
        study of confidence intervals for proportions in complex sample surveys", J. Surv. Stat. Methodol. 7).
        """
        size, degrees = self.effective_images, float("inf")
        if self._images_vary and variance.total > 0 and 0 < value < 1:
            size = min(value * (1 - value) / variance.total, self._most_effective(variance.seed_count))
            degrees = variance.degrees
        t2 = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) ** 2
        centre = (value + t2 / (2 * size)) / (1 + t2 / size)
        half = np.sqrt(t2 * (value * (1 - value) / size + t2 / (4 * size**2))) / (1 + t2 / size)
        return max(0.0, float(centre - half)), min(1.0, float(centre + half))

    def difference(self, rows: Sequence[int], others: Sequence[int]) -> Difference:
        """Return runs minus others, paired: `rows[k]` and `others[k]` share a seed, all share the images."""
        values = self.values[list(rows)] - self.values[list(others)]
        variance = self._variance(values, self._resampled[:, list(rows)] - self._resampled[:, list(others)])
        value = float(values.mean())
        error, degrees = 0.0, None
        if self._images_vary and variance.total > 0:
            error, degrees = float(np.sqrt(variance.total)), variance.degrees
            half = float(stats.t.ppf((1 + LEVEL) / 2, degrees) * error)
            p = float(2 * stats.t.sf(abs(value) / error, degrees))
        else:
            half, p = self._without_variance(value)
        most = self.range[1] - self.range[0]
        low, high = max(-most, value - half), min(most, value + half)
        return Difference(value, low, high, p, len(values), error, degrees)

    def _without_variance(self, value: float) -> tuple[float, float]:
        """Return half-width and p where every image shows the same difference: exact, over images alone."""
        if not self._images_vary:
            return 2.0, 1.0
        half = 1 - ((1 - LEVEL) / 2) ** (1 / self.images)  # zero exceptions in N: Clopper and Pearson 1934
        return half, 1.0 if value == 0 else min(1.0, 2.0 ** (1 - self.images))  # sign test


class CrossedPooled(Crossed):
    """A statistic of the whole set, of R runs on the same N images, resampled by image.

    Where nothing varies there is no interval, only the value: the exact bounds of `Crossed` count right
    images.
    """

    proportions = False

    def __init__(self, images: int, draws: int, seed: int) -> None:
        self._groups = [np.arange(images)]
        self._draws, self._seed = draws, seed
        self.images = images

    def _score_interval(self, value: float, variance: Variance) -> tuple[float, float]:
        if self._images_vary and variance.total == 0:
            return value, value
        return super()._score_interval(value, variance)

    def _without_variance(self, value: float) -> tuple[float, float]:
        half, p = super()._without_variance(value)
        return (0.0 if self._images_vary else half), p

    def _most_effective(self, _seeds: int) -> float:
        """An image may hold much, such as pixels, so the number of images sets no limit."""
        return float("inf")


class CrossedRatios(CrossedPooled):
    """Ratios of sums over images, such as IoU, of R runs on the same N images, resampled by image.

    The metric is the mean over K ratios (classes), each the sum of its numerators over all images by that of
    its denominators; a ratio that no drawn image has anything to say on is left out of the mean.

    Args:
        numerators: float, shape (R, N, K).
        denominators: float, shape (R, N, K).
        weights: float, shape (N, K): how much an image says on a ratio (pixels of the class in its truth).
        draws: number of resamples.
        seed: of the random numbers.
    """

    def __init__(
        self,
        numerators: np.ndarray,
        denominators: np.ndarray,
        weights: np.ndarray,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        super().__init__(numerators.shape[1], draws, seed)
        self._sums = [numerators, denominators, weights[None]]
        self.values = self._mean_ratios(np.ones((1, self.images)))[0]

    def _resample(self) -> np.ndarray:
        generator, draws = np.random.default_rng([self._seed, 0]), self._draws
        runs, _, ratios = self._sums[0].shape
        step = max(1, BLOCK // max(self.images, runs * ratios))
        return np.concatenate(
            [
                self._mean_ratios(image_weights(generator, min(step, draws - start), self.images))
                for start in range(0, draws, step)
            ]
        )

    def _mean_ratios(self, drawn: np.ndarray) -> np.ndarray:
        """Return the metric of each run, shape (D, R), under weights of the images, shape (D, N)."""
        above, below, shown = (np.einsum("dn,rnk->drk", drawn, part, optimize=True) for part in self._sums)
        counted = shown > 0
        ratios = np.divide(above, below, out=np.zeros_like(above), where=counted & (below > 0))
        return np.asarray(ratios.sum(axis=2) / np.maximum(counted.sum(axis=2), 1))


@lru_cache(maxsize=2)  # the same for every pair of strategies with as many seeds
def _seed_weights(seed: int, draws: int, count: int) -> np.ndarray:
    """Return resamples of count - 1 out of `count` seeds: weights with sum 1, shape (draws, count)."""
    generator = np.random.default_rng([seed, 1])
    drawn = generator.multinomial(max(count - 1, 1), np.full(count, 1 / count), size=draws)
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


def image_weights(generator: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Return `rows` resamples of size - 1 out of `size` images: weights with sum 1, shape (rows, size)."""
    if size == 1:
        return np.ones((rows, 1))
    drawn = generator.integers(0, size, (rows, size - 1)) + np.arange(rows)[:, None] * size
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size) / (size - 1)
