"""The predictions of the done runs of a study, in the shape that statistics take."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.analysis.evidence import Evidence
from bench.study.metrics import Certainty, Counts


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of R runs for the N images that all of them have.

    Args:
        rows: (strategy, seed) to row number.
        correct: float, shape (R, N): what share of an image is right.
        targets: the N class names; empty ones where images have no single class.
        dropped: test images left out because some run has no prediction for them.
        images: their N names, sorted.
        classes: the K classes that occur in the truth.
        count: returns what the images hold of each class.
        find_certainty: returns how sure the R runs are of the N images.
        scores: what each class is ranked by, float, shape (R, N, K); None where they are not stored.
        group_names: of the N images; empty ones belong to no group. None are known: none do.
    """

    rows: Mapping[tuple[str, int], int]
    correct: np.ndarray
    targets: np.ndarray
    dropped: int
    images: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    count: Callable[[], Counts] | None = None
    find_certainty: Callable[[], Certainty] | None = None
    scores: np.ndarray | None = None
    group_names: tuple[str, ...] = ()

    def by_strategy(self, strategies: Iterable[str]) -> dict[str, dict[int, int]]:
        """Return strategy to seed to row, for those of the strategies that have any."""
        rows: dict[str, dict[int, int]] = {}
        for (name, seed), row in self.rows.items():
            rows.setdefault(name, {})[seed] = row
        return {name: rows[name] for name in strategies if name in rows}

    @cached_property
    def groups(self) -> np.ndarray:
        """Which images belong together, int, shape (N,): the same number for those of a group."""
        names = self.group_names or ("",) * len(self.targets)
        alone = [f"\0{place}" for place in range(len(names))]  # no name of a group has this sign
        return np.unique([name or own for name, own in zip(names, alone, strict=True)], return_inverse=True)[
            1
        ]

    @cached_property
    def counts(self) -> Counts:
        """What the images hold of each class."""
        if self.count is None:
            raise ValueError("these predictions say nothing of single classes")
        return self.count()

    @cached_property
    def certainty(self) -> Certainty:
        """How sure the runs are of the images."""
        if self.find_certainty is None:
            raise ValueError("these predictions say nothing of probabilities")
        return self.find_certainty()


def scores_of(
    evidence: Evidence, rows: Iterable[tuple[str, int]], images: Sequence[str], classes: Sequence[str]
) -> np.ndarray | None:
    """Return what runs rank images by, shape (R, N, K), in the order given; None where it is not stored."""
    keys = list(rows)
    if not keys or not all(key in evidence.scores for key in keys):
        return None
    found = []
    for stored in map(evidence.scores.__getitem__, keys):
        row = {name: place for place, name in enumerate(stored.images)}
        column = {name: place for place, name in enumerate(stored.classes)}
        found.append(stored.values[np.ix_([row[n] for n in images], [column[n] for n in classes])])
    return np.stack(found).astype(float)


def read(evidence: Evidence) -> Predictions:
    """Return the predictions of all done runs, read as the study's task keeps them."""
    module = importlib.import_module(f"bench.analysis.predictions.{evidence.study.task}")
    predictions: Predictions = module.read(evidence)
    return predictions
