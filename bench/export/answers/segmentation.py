"""Of a class for each pixel: a mask, and how much of the picture each class takes."""

from collections.abc import Sequence

import numpy as np

from bench.data.dataset import NO_LABEL
from bench.export.answers.base import Answer

THRESHOLD = 0.0
UNSURE = "unsure"
SHAPE = "(N, classes, S, S)"
LEAST = 0.01  # share of a picture from which on a class is named


def answer(probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> Answer:
    """Return each pixel's most probable class, unless that is less probable than the threshold.

    What is named are the classes of a hundredth of the picture or more, the largest first; the probability is
    the mean over its pixels.

    Args:
        probabilities: shape (classes, H, W).
        classes: their names.
        threshold: from 0 to 1.
    """
    highest = probabilities.max(0)
    mask = np.where(highest >= threshold, probabilities.argmax(0), NO_LABEL).astype(np.uint8)
    counts = np.bincount(mask.ravel(), minlength=NO_LABEL + 1)
    shares = {name: counts[n] / mask.size for n, name in enumerate(classes) if counts[n]}
    order = sorted(shares, key=lambda name: -shares[name])
    said = [f"{name} {shares[name]:.0%}" for name in order if shares[name] >= LEAST]
    if (unsure := counts[NO_LABEL] / mask.size) >= LEAST and said:
        said.append(f"{UNSURE} {unsure:.0%}")
    mean = float(highest.mean())
    details = {"shares": {name: float(shares[name]) for name in order}, "probability": mean}
    return Answer("; ".join(said), mean, mean, details, mask)
