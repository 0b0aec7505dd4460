"""Of any number of classes for each picture: all that are probable enough."""

from collections.abc import Sequence

import numpy as np

from bench.export.answers.base import Answer

THRESHOLD = 0.5  # above which training counts a class as predicted
UNSURE = "none"
SHAPE = "(N, classes)"


def answer(probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> Answer:
    """Return the classes whose probability is above the threshold, the most probable first.

    It is as certain as the class that it is least sure of, having it or not.

    Args:
        probabilities: shape (classes,).
        classes: their names.
        threshold: from 0 to 1.
    """
    order = [int(n) for n in np.argsort(-probabilities, kind="stable") if probabilities[n] > threshold]
    named = [classes[n] for n in order]
    each = {name: float(value) for name, value in zip(classes, probabilities, strict=True)}
    certainty = float(np.maximum(probabilities, 1 - probabilities).min())
    shown = "; ".join(f"{probabilities[n]:.4f}" for n in order)
    return Answer("; ".join(named), shown, certainty, {"classes": named, "probabilities": each})
