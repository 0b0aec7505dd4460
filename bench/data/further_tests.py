"""Further test sets of a study: other images of the same classes, which no run trains on or is chosen by."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bench.core.errors import InputError
from bench.data.dataset import TEST, Dataset
from bench.data.loading import load
from bench.study.schema import Target, with_changes


@dataclass(frozen=True, eq=False)
class FurtherTest:
    """A test set from elsewhere.

    Args:
        dataset: with the classes of the study, in its order.
        indices: of the images that are tested on: int64.
        known: how many of them the study's own data have, too, pixel for pixel.
    """

    dataset: Dataset
    indices: np.ndarray
    known: int


def further_tests(target: Target, own: Dataset) -> dict[str, FurtherTest]:
    """Return the further test sets of a target by name; of data that have a test part, that part.

    Args:
        target: names them, and says how images are stored.
        own: the data set that is trained on.

    Raises:
        InputError: if one can't be used, or has a class that the study's data have not.
    """
    if not target.also_test:
        return {}
    found, ours = {}, {_digest(image) for image in own.images}
    for name, data in target.also_test.items():
        where = f"target.also_test.{name}"
        try:
            other = load(
                with_changes(target, data=data, groups="auto", group_pattern=None, fit=own.framing.fit)
            )
        except InputError as error:
            raise InputError(error.what, where, error.remedy) from error
        renamed = _with_classes_of(own, other, where)
        indices = np.flatnonzero(renamed.parts == TEST)
        indices = _at_most(target.cap, indices if len(indices) else np.arange(len(renamed.labels)))
        found[name] = FurtherTest(renamed, indices, sum(_digest(renamed.images[i]) in ours for i in indices))
    return found


def _with_classes_of(own: Dataset, other: Dataset, where: str) -> Dataset:
    """Return the same data with labels that mean what those of the study's data mean."""
    unknown = [name for name in other.classes if name not in own.classes]
    if unknown:
        shown = ", ".join(own.classes[:5]) + ", ..." * (len(own.classes) > 5)
        what = f"its class '{unknown[0]}' is none of the study's data ({shown})"
        raise InputError(what, where, "name the classes alike, or leave that one out")
    places = np.array([own.classes.index(name) for name in other.classes], dtype=np.int64)
    return replace(other, classes=own.classes, labels=places[other.labels])


def _at_most(cap: int | None, indices: np.ndarray) -> np.ndarray:
    """Return so many of the images, evenly spaced; all if there is no limit."""
    if cap is None or len(indices) <= cap:
        return indices
    return indices[np.linspace(0, len(indices) - 1, cap).round().astype(np.int64)]


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def identities(tests: Mapping[str, FurtherTest]) -> dict[str, list[str | int]]:
    """Return what tells further test sets from others of the same name."""
    return {name: [test.dataset.digest, len(test.indices)] for name, test in tests.items()}
