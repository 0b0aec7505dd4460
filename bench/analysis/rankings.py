"""Statistics of rankings, such as AUROC: of each run, and what each image adds to them."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from bench.study.metrics import Ranks

STEP = 1e-4  # of a count, to either side of it: how the credit changes with it


def rankings(
    scores: np.ndarray, truth: np.ndarray, credit: Callable[[Ranks], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the statistic of R runs, shape (R,), and the influence of N images on it, shape (R, N).

    It is the mean over classes of the mean credit of the images that show the class. A class that nothing can
    be said on, because no image shows it or every one does, is left out.

    Args:
        scores: float, shape (R, N, K): images are ranked by them, class by class.
        truth: shape (N, K): above 0 where an image shows the class.
        credit: see `Ranking`.
    """
    shown = [k for k in range(truth.shape[1]) if (truth[:, k] > 0).any()]
    with np.errstate(invalid="ignore"):
        found = [[_of_class(run[:, k], truth[:, k] > 0, credit) for k in shown] for run in scores]
    known = [[(mean, own) for mean, own in classes if np.isfinite(mean)] for classes in found]
    if not all(known):
        raise ValueError("no class is shown by some test images and not by others: there is nothing to rank")
    values = np.array([np.mean([mean for mean, _ in classes]) for classes in known])
    return values, np.array([np.mean([own for _, own in classes], axis=0) for classes in known])


def _of_class(
    scores: np.ndarray, shows: np.ndarray, credit: Callable[[Ranks], np.ndarray]
) -> tuple[float, np.ndarray]:
    """Return the mean credit of a class, and what each image adds to it, shape (N,).

    An image adds its own credit, if it shows the class, and what it changes in that of others: by the chain
    rule, through each count of its rank. For AUROC these are the placement values of DeLong et al. 1988,
    Biometrics 44.
    """
    own = scores[shows, None]
    from_here = (scores >= own).astype(float)  # (P, N)
    below = np.where(shows, 0.0, 1 - from_here + 0.5 * (scores == own))
    counts = {  # what each image counts for
        "positives_from": np.where(shows, from_here, 0.0),
        "images_from": from_here,
        "negatives_below": below,
        "negatives": np.broadcast_to(~shows, from_here.shape).astype(float),
    }
    ranks = Ranks(**{name: count.sum(axis=1) for name, count in counts.items()})
    gained = credit(ranks)
    mean, positives = float(gained.mean()), len(gained)
    if not np.isfinite(mean):
        return mean, np.zeros(len(scores))
    changes = np.zeros(len(scores))
    for name in (field.name for field in fields(ranks)):
        more, fewer = (replace(ranks, **{name: getattr(ranks, name) + step}) for step in (STEP, -STEP))
        slope = (credit(more) - credit(fewer)) / (2 * STEP)
        changes += slope @ counts[name]
    changes[shows] += gained - mean
    return mean, changes / positives
