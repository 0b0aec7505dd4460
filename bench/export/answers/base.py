"""What a model says of one picture, whatever its task."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of one picture.

    Args:
        label: the class, or classes, in words; empty where it is unsure, or there are none.
        probability: of what is said: a number, or several with `; ` between them.
        certainty: from 0 to 1: by which the least certain pictures are found.
        details: JSON types; all that is known.
        mask: the class of each pixel of the picture as it was shown, uint8 (H, W), NO_LABEL where unsure.
    """

    label: str
    probability: float | str
    certainty: float
    details: Mapping[str, Any]
    mask: np.ndarray | None = None


class Answering(Protocol):
    """The module of a task.

    Attributes:
        THRESHOLD: used where none is given.
        UNSURE: what stands for an empty label, for people.
        SHAPE: of probabilities, in words.
    """

    THRESHOLD: float
    UNSURE: str
    SHAPE: str

    def answer(self, probabilities: np.ndarray, classes: Sequence[str], threshold: float) -> Answer:
        """Return what the probabilities of one picture, (classes, ...), say."""


def answering(task: str) -> Answering:
    """Return the module of a task."""
    module: Answering = importlib.import_module(f"bench.export.answers.{task}")
    return module
