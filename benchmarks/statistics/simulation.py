"""Studies made up from a model whose truth is known, and how often what is said of them is wrong.

A run is right on an image if a sum of normal effects is above 0: the strategy's level, the seed, the group of
the image, the group and the strategy, the group and the run, the image, the image and the strategy, and the
rest. Groups and images are the same for all strategies; seeds are not, which makes differences least sure.
Where seeds have training images in common, a part of a seed's effect is the same for all of a strategy.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from bench.analysis.comparisons import ALPHA, shaffer
from bench.analysis.spread import MOST_IN_COMMON, spread_of
from bench.analysis.statistics import shares
from bench.analysis.variance import LEVEL, Sample, Scale, at_margin, log_odds, one_sided

MARGIN = 0.02
EQUAL = 5  # strategies; a sixth is worse by the margin
INDEPENDENT = {
    "image": 0.5,
    "image and strategy": 0.15,
    "rest": 0.35,
}  # of a variance of 1, without the seeds
GROUPED = {
    "group": 0.1,
    "group and strategy": 0.05,
    "group and run": 0.05,
    "image": 0.4,
    "image and strategy": 0.1,
    "rest": 0.3,
}
QUANTILES = special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)
BLOCK = 2_000_000  # predictions held in memory at a time
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


@dataclass(frozen=True)
class Cell:
    """What is the same for all studies of a cell.

    Args:
        seeds: how many.
        seed_sd: standard deviation of accuracy between seeds, of infinitely many images.
        groups, size: of test images: how many, and of how many images each.
        accuracy: the true one, of seeds and images alike.
        overlap: share of the variance of seeds that is the same for all of a strategy.
    """

    seeds: int
    seed_sd: float
    groups: int
    size: int
    accuracy: float
    overlap: float = 0.0


GROUPS = {"none": (700, 1), "128 x 7": (128, 7), "44 x 15": (44, 15), "19 x 50": (19, 50)}
CELLS = [
    Cell(seeds, sd, *GROUPS[groups], accuracy)
    for seeds, sd, groups, accuracy in itertools.product(
        (3, 5, 10), (0.005, 0.01, 0.02, 0.03), GROUPS, (0.6, 0.8, 0.9, 0.97)
    )
]
ALIKE = [
    Cell(seeds, sd, *GROUPS[groups], 0.85, overlap)
    for seeds, sd, groups, overlap in itertools.product(
        (5, 10), (0.005, 0.01, 0.03), ("none", "44 x 15"), (0.1, 0.2, MOST_IN_COMMON)
    )
]


def level_and_seed_sd(accuracy, seed_sd):
    """Return level and standard deviation of seeds on the latent scale, where the rest has variance 1."""
    weights = WEIGHTS / WEIGHTS.sum()

    def sd_of(latent):
        of_seeds = special.ndtr(special.ndtri(accuracy) * np.hypot(1, latent) + latent * NODES)
        return np.sqrt(max(0.0, weights @ of_seeds**2 - (weights @ of_seeds) ** 2))

    latent = optimize.brentq(lambda value: sd_of(value) - seed_sd, 0, 3)
    return special.ndtri(accuracy) * np.hypot(1, latent), latent


def draw(cell, accuracies, studies, random):
    """Return the share of each group that runs are right on: (studies, strategies, seeds, groups)."""

    def normal(variance, *shape):
        drawn = QUANTILES[random.integers(0, 1 << 16, shape, dtype=np.uint16)]
        return drawn * np.float32(np.sqrt(variance))

    of = GROUPED if cell.size > 1 else INDEPENDENT
    many = len(accuracies)
    found = [level_and_seed_sd(accuracy, cell.seed_sd) for accuracy in accuracies]
    levels, sds = (np.array(part, np.float32)[:, None, None] for part in zip(*found, strict=True))
    seeds = normal(1 - cell.overlap, studies, many, cell.seeds, 1) + normal(cell.overlap, studies, many, 1, 1)
    latent = levels + sds * seeds
    if cell.size > 1:
        latent = latent + normal(of["group"], studies, 1, 1, cell.groups)
        latent = latent + normal(of["group and strategy"], studies, many, 1, cell.groups)
        latent = latent + normal(of["group and run"], studies, many, cell.seeds, cell.groups)
    images = normal(of["image"], studies, 1, 1, cell.size, cell.groups)
    images = images + normal(of["image and strategy"], studies, many, 1, cell.size, cell.groups)
    rest = normal(of["rest"], studies, many, cell.seeds, cell.size, cell.groups)
    rest += images
    rest += latent[..., None, :]
    return (rest > 0).sum(axis=-2, dtype=np.uint8) / cell.size


class Studies:
    """What is measured in many studies at once: the same numbers as `Crossed` has of one.

    Groups are of one size, so that the mean of a group stands for its images.
    """

    def __init__(self, right, overlap=0.0):
        studies, strategies, seeds, groups = right.shape
        self.sample = Sample.independent(groups)
        self.overlap, self.groups = overlap, groups
        values, influence = shares(right.reshape(-1, groups), self.sample)
        sums = self.sample.by_group(influence).reshape(studies, strategies * seeds, groups)
        self.values = values.reshape(studies, strategies, seeds)
        covariance = sums @ sums.swapaxes(1, 2)
        self.covariance = covariance.reshape(studies, strategies, seeds, strategies, seeds)

    @property
    def means(self):
        """The accuracy of each strategy, shape (studies, strategies)."""
        return self.values.mean(axis=2)

    def _block(self, one, other):
        return np.stack([self.covariance[:, i, :, j] for i, j in zip(one, other, strict=True)], axis=1)

    def of_strategies(self, which):
        """Return the spread of strategies' means."""
        return spread_of(self.values[:, which], self._block(which, which), self.sample.degrees, self.overlap)

    def of_pairs(self, pairs):
        """Return the spread of the differences of pairs."""
        one, other = map(list, zip(*pairs, strict=True))
        covariance = self._block(one, one) + self._block(other, other)
        covariance -= self._block(one, other) + self._block(other, one)
        return spread_of(
            self.values[:, one] - self.values[:, other], covariance, self.sample.degrees, self.overlap
        )


def cover(found, which, accuracy, images):
    """Return whether the intervals of strategies hold their accuracy; as `Crossed` has them.

    Where all are right, that is Wilson's of as many as there are groups.
    """
    means = found.means[:, which]
    room, seeds = means * (1 - means), found.values.shape[2]
    spread = found.of_strategies(which).at_least(room / (images * seeds))
    known = np.where(room > 0, means, 0.5)
    spread = spread.at_least(np.where(room > 0, 0.0, 1.0))
    off = np.abs(log_odds(known, spread) - special.logit(accuracy)) * known * (1 - known)
    all_right = found.groups / (found.groups + special.ndtri((1 + LEVEL) / 2) ** 2)
    return np.where(room > 0, 2 * spread.tail(off) >= 1 - LEVEL, accuracy >= all_right)


def equivalent(found, pairs, grouped):
    """Return whether pairs are shown to be equivalent, and whether the second is shown not to be worse."""
    one, other = (found.means[:, [pair[side] for pair in pairs]] for side in (0, 1))
    spread, scale = found.of_pairs(pairs), Scale(shares=True)
    p_above, p_below = (
        one_sided(
            MARGIN - sign * (one - other), at_margin(spread, (one, other), sign * MARGIN, scale, grouped)
        )
        for sign in (1, -1)
    )
    return np.maximum(p_above, p_below) < ALPHA, p_above < ALPHA


def measure(cell, studies, random):
    """Return how often what is said of the studies of a cell is wrong, and how often something is found."""
    accuracies = [cell.accuracy] * EQUAL + [cell.accuracy - MARGIN]
    size = max(1, BLOCK // (len(accuracies) * cell.seeds * cell.groups * cell.size))
    parts = [
        _measure(cell, draw(cell, accuracies, min(size, studies - start), random))
        for start in range(0, studies, size)
    ]
    return {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}


def _measure(cell, right):
    found = Studies(right, cell.overlap)
    equal, sixth = list(range(EQUAL)), EQUAL
    same, apart = list(itertools.combinations(equal, 2)), [(one, sixth) for one in equal]
    gaps = {name: found.of_pairs(pairs) for name, pairs in (("same", same), ("apart", apart))}
    size = {
        name: found.means[:, [i for i, _ in pairs]] - found.means[:, [j for _, j in pairs]]
        for name, pairs in (("same", same), ("apart", apart))
    }
    p = {name: np.minimum(1, 2 * gaps[name].tail(np.abs(size[name]))) for name in gaps}
    at_truth = 2 * gaps["apart"].tail(np.abs(size["apart"] - MARGIN))
    alone = np.array([shaffer(row, EQUAL) for row in p["same"]]) < ALPHA
    beside = np.array([shaffer(row, EQUAL + 1) for row in np.hstack([p["same"], p["apart"]])]) < ALPHA
    small, not_worse = equivalent(found, apart, cell.size > 1)
    return {
        "strategy": cover(found, equal, cell.accuracy, cell.groups * cell.size),
        "difference": np.hstack([p["same"], at_truth]) >= 1 - LEVEL,
        "alarm": alone.any(axis=1),
        "alarm beside a sixth": beside[:, : len(same)].any(axis=1),
        "equivalent": small,
        "not worse": not_worse,
        "found better": beside[:, len(same) :],
        "found equivalent": equivalent(found, same, cell.size > 1)[0],
    }
