"""Of a class for each picture: the most probable one."""

from collections.abc import Sequence

import numpy as np

from bench.export.answers.base import Answer

THRESHOLD = 0.0
UNSURE = "unsure"
SHAPE = "(N, classes)"


def answer(probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> Answer:
    """Return the most probable class, or none if that is less probable than the threshold.

    Args:
        probabilities: shape (classes,).
        classes: their names.
        threshold: from 0 to 1.
    """
    best = int(probabilities.argmax())
    highest = float(probabilities[best])
    label = classes[best] if highest >= threshold else ""
    each = {name: float(value) for name, value in zip(classes, probabilities, strict=True)}
    details = {"class": label or None, "probability": highest, "probabilities": each}
    return Answer(label, highest, highest, details)
