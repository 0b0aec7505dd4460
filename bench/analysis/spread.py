"""What the variance of a mean over seeds and test images is made of, and how likely an error of its size is.

Every run (a seed) predicts every test image, so the two are crossed. As in studies of several readers and
cases, readers being seeds, the variance of a mean over S seeds is that between the values of seeds, by S,
and the covariance that the test images give to the values of two seeds (Obuchowski and Rockette 1995,
Commun. Stat. Simul. Comput. 24; Hillis 2007, Stat. Med. 26). The former contains the interaction of seeds and
images, the latter does not: it is counted once.

Both are estimated, and of few seeds badly. Satterthwaite's degrees of freedom then promise too much where it
matters, far out in the tail: five equal strategies with five seeds are told apart in 10 % of studies instead
of 5. So the error is taken as a weighted sum of two t variables, the distribution of Behrens and Fisher
(Kim and Cohen 1998, J. Educ. Behav. Stat. 23, review it), integrated numerically. `make statistics` shows how
often intervals and tests on this ground are wrong.

Seeds whose training sets overlap differ less than training sets do: of the variance of a mean over S of
them, a part that does not shrink with S is unseen. Where two share a part r of their training images, it is
at most r / (1 - r) times the variance between seeds (as Nadeau and Bengio 2003, Mach. Learn. 52, have it for
resampled test sets), interaction apart. It is added whole, as if seeds differed by their training images
alone; what is left of the variance between seeds without the interaction follows from the same integral (a
generalised pivot: Weerahandi 1993, JASA 88). Where they share more than half, that would drown all that is
seen: then nothing is added, and what is said is said of these training images, not of others.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import optimize, special, stats

ROUNDING = 1e-15  # a variance below is that of rounding
NODES = ((2, 64), (4, 40), (float("inf"), 24))  # of an integral, below degrees of freedom: five digits
MOST_IN_COMMON = 0.5  # share of training images; above, other training images are out of reach
EDGE = 1e-10  # of the probability, at each end of an integral


@dataclass(frozen=True)
class Spread:
    """The variance of a mean over seeds and test images, by what it comes from; or arrays of variances.

    Args:
        seeds: what the values of seeds differ by, divided by their number; with the interaction.
        interaction: the part of it that comes from seeds being right on different test images.
        images: what test images give to all seeds alike.
        seed_count: how many seeds there are; of one nothing is known about others, and `seeds` is 0.
        image_degrees: degrees of freedom of `images`: of groups of test images, one less than there are.
        unseen: how much of the variance between seeds is missing because of common training images, for each
            unit that is seen.
    """

    seeds: float
    interaction: float
    images: float
    seed_count: int
    image_degrees: float
    unseen: float = 0.0

    @property
    def total(self) -> float:
        """The variance of the mean."""
        seeds: float = _with_unseen(self.seeds, self.interaction, self.unseen)
        return seeds + self.images

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom, for what needs a single t; infinite without a variance."""
        parts = [(self.images, self.image_degrees)]
        if self.seed_count > 1:
            parts.append((_with_unseen(self.seeds, self.interaction, self.unseen), self.seed_count - 1))
        below = sum(part**2 / degrees for part, degrees in parts)
        return self.total**2 / below if below > 0 else float("inf")

    @property
    def more_seeds(self) -> float:
        """The share of the variance that more seeds would remove, 0 to 1."""
        return self.seeds / self.total if self.total else 0.0

    def scaled(self, seeds: float, images: float) -> "Spread":
        """Return the spread with its parts multiplied."""
        return replace(
            self, seeds=self.seeds * seeds, interaction=self.interaction * seeds, images=self.images * images
        )

    def with_seeds(self, count: int) -> "Spread":
        """Return the spread of so many seeds, if they differ as these do; one tells nothing of others."""
        more = count / self.seed_count
        scaled = self.scaled(1 / more, 1.0)
        return replace(scaled, seed_count=count, unseen=more * self.unseen)

    def with_images(self, times: float) -> "Spread":
        """Return the spread on so many times the test images, if they are like these."""
        return replace(
            self,
            seeds=self.seeds - self.interaction + self.interaction / times,
            interaction=self.interaction / times,
            images=self.images / times,
            image_degrees=self.image_degrees * times,
        )

    def at_least(self, total: float) -> "Spread":
        """Return the spread, with more from the images where it is smaller than that."""
        return replace(self, images=self.images + np.maximum(0.0, total - self.total))

    def tail(self, size: float) -> float:
        """Return how likely an error above a size is; shape as that of the parts."""
        of_seeds, seed_weights = _inverse_chi_square(self.seed_count - 1)
        of_images, image_weights = _inverse_chi_square(self.image_degrees)
        seeds = np.multiply.outer(self.seeds, of_seeds)
        seeds = _with_unseen(seeds, np.asarray(self.interaction)[..., None], self.unseen)
        images = np.multiply.outer(self.images, of_images)
        variances = seeds[..., :, None] + images[..., None, :]
        errors = np.sqrt(np.maximum(variances, np.finfo(float).tiny))
        beyond = special.ndtr(-np.asarray(size)[..., None, None] / errors)
        return beyond @ image_weights @ seed_weights  # type: ignore[no-any-return]

    def quantile(self, level: float) -> float:
        """Return the size above which an error is with this probability, below a half; of floats only."""
        if self.total <= 0:
            return 0.0
        high = np.sqrt(self.total)
        while self.tail(high) > level:
            high *= 2
        return float(optimize.brentq(lambda size: self.tail(size) - level, 0.0, high, rtol=1e-9))


def _with_unseen(seeds: Any, interaction: Any, unseen: float) -> Any:
    """Return the part of the seeds with what is unseen of it; floats or arrays."""
    return seeds + unseen * np.maximum(seeds - interaction, 0.0) if unseen else seeds


def spread_of(values: np.ndarray, covariance: np.ndarray, image_degrees: float, overlap: float) -> Spread:
    """Return the spread of the mean of some runs.

    Args:
        values: of the S runs, one for each seed; shape (..., S).
        covariance: of their values, from the test images; shape (..., S, S).
        image_degrees: see `Spread`.
        overlap: the share of its training images that a seed has in common with another, 0 to 1.
    """
    count = values.shape[-1]
    own = np.trace(covariance, axis1=-2, axis2=-1) / count
    whole = covariance.mean(axis=(-2, -1))
    if count == 1:
        return Spread(0.0 * whole, 0.0 * whole, _no_rounding(whole), 1, image_degrees)
    between = (count * whole - own) / (count - 1)
    return Spread(
        seeds=_no_rounding(values.var(axis=-1, ddof=1) / count),
        interaction=_no_rounding((own - between) / count),
        images=_no_rounding(between),
        seed_count=count,
        image_degrees=image_degrees,
        unseen=count * overlap / (1 - overlap) if overlap <= MOST_IN_COMMON else 0.0,
    )


def _no_rounding(part: np.ndarray) -> float:
    """Return an estimated variance that is not below zero, nor of rounding."""
    kept = np.where(part > ROUNDING, part, 0.0)
    return kept if kept.ndim else float(kept)  # type: ignore[return-value]


@lru_cache(maxsize=64)
def _inverse_chi_square(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values of degrees / chi-square and their weights: the trapezoidal rule in its logarithm.

    The density falls off exponentially to both sides, where that rule converges exponentially (Trefethen and
    Weideman 2014, SIAM Rev. 56). Of no degrees, nothing is known: the value is 0.
    """
    if degrees <= 0:
        return np.zeros(1), np.ones(1)
    low, high = np.log(stats.chi2.ppf(EDGE, degrees)), np.log(stats.chi2.isf(EDGE, degrees))
    nodes = next(count for most, count in NODES if degrees < most)
    points = np.exp(np.linspace(low, high, nodes))
    weights = stats.chi2.pdf(points, degrees) * points
    return degrees / points, weights / weights.sum()
