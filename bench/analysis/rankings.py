"""Statistics of rankings, such as AUROC, resampled by image."""

from collections.abc import Callable

import numpy as np

from bench.analysis.variance import BLOCK, DRAWS, CrossedPooled, image_weights
from bench.study.metrics import Ranks

MOST_DRAWS = 1000  # a resample costs as many operations as there are pairs of images


class CrossedRankings(CrossedPooled):
    """A credit for the place in a ranking, of R runs on the same N images, resampled by image.

    The metric is the mean over K classes of the mean credit of the images that show the class. A class that a
    resample can say nothing on is left out of the mean; a resample that can say nothing counts as the value.

    Args:
        scores: float, shape (R, N, K): images are ranked by them, class by class.
        truth: shape (N, K): above 0 where an image shows the class.
        credit: see `Ranking`.
        draws: number of resamples, at most MOST_DRAWS.
        seed: of the random numbers.
    """

    def __init__(
        self,
        scores: np.ndarray,
        truth: np.ndarray,
        credit: Callable[[Ranks], np.ndarray],
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        super().__init__(scores.shape[1], min(draws, MOST_DRAWS), seed)
        self._scores, self._truth, self._credit = scores, truth > 0, credit
        self.values = self._means(np.ones((1, self.images)))[0]

    def _resample(self) -> np.ndarray:
        generator = np.random.default_rng([self._seed, 0])
        step = max(1, BLOCK // self.images)
        parts = []
        for start in range(0, self._draws, step):
            drawn = image_weights(generator, min(step, self._draws - start), self.images)
            parts.append(self._means(drawn))
        found = np.concatenate(parts)
        return np.where(np.isfinite(found), found, self.values)

    def _means(self, drawn: np.ndarray) -> np.ndarray:
        """Return the metric of each run, shape (D, R), under weights of the images, shape (D, N)."""
        runs, _, classes = self._scores.shape
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.array(
                [[self._mean_credit(drawn, run, k) for k in range(classes)] for run in range(runs)]
            )  # (R, K, D)
            known = np.isfinite(found)
            return np.asarray((np.where(known, found, 0).sum(1) / known.sum(1)).T)

    def _mean_credit(self, drawn: np.ndarray, run: int, k: int) -> np.ndarray:
        """Return the mean credit for a class, shape (D,); NaN where there is none."""
        scores, positive = self._scores[run, :, k], self._truth[:, k]
        own = scores[positive, None]
        at_or_above = (scores >= own).astype(float)  # (P, N)
        below = 1 - at_or_above[:, ~positive] + 0.5 * (scores[~positive] == own)
        shown, hidden = drawn[:, positive], drawn[:, ~positive]
        ranks = Ranks(
            positives_from=shown @ at_or_above[:, positive].T,
            images_from=drawn @ at_or_above.T,
            negatives_below=hidden @ below.T,
            negatives=hidden.sum(1, keepdims=True),
        )
        credit = np.where(shown > 0, self._credit(ranks), 0)
        return np.asarray((credit * shown).sum(1) / shown.sum(1))
