"""The plain types of the data path: a decoded data set and the split that a study makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from bench.core.hashing import digest
from bench.data.framing import AS_IT_IS, Framing

UNASSIGNED, TRAIN, VAL, TEST = -1, 0, 1, 2
NO_LABEL = 255  # in a mask: the pixel counts nowhere
PART_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}


@dataclass(frozen=True)
class Rejected:
    """An image that was left out, and why."""

    name: str
    reason: str


class UnreadableError(Exception):
    """One image can't be used; the message is the reason that a person is told."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded data set.

    Args:
        name: as the study names it.
        classes: class names; a label is an index into them.
        images: uint8, shape (N, S, S, 3), RGB, read-only, memory-mapped.
        labels: int64, shape (N,), by which splits are stratified; all zero where there are masks.
        parts: int8, shape (N,): the part that the data set itself assigns (TRAIN, VAL, TEST), or UNASSIGNED.
        names: N names that a person can find the image by (a path below the folder).
        digest: SHA-256 over pixels, labels, classes, parts and, where there are some, groups.
        rejected: the images that could not be read.
        licence: of the data, as their source states it.
        origin: where they come from: a folder, a package with its version, a URL.
        masks: uint8, shape (N, S, S), read-only, memory-mapped: the class of each pixel, or NO_LABEL; only in
            data for segmentation.
        groups: int64, shape (N,): which images belong together (cells of one module, frames of one drive) and
            so may not be split up; None where each stands for itself.
        group_names: of groups 0, 1, ..., as a person knows them.
        group_kind: what a group is, in the singular.
        framing: how pictures became the squares of `images`.
    """

    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    names: tuple[str, ...]
    digest: str
    rejected: tuple[Rejected, ...] = ()
    licence: str = "not stated"
    origin: str = ""
    masks: np.ndarray | None = None
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()
    group_kind: str = ""
    framing: Framing = AS_IT_IS

    def missing_classes(self, indices: np.ndarray) -> list[str]:
        """Return the classes that a part of the data must show and doesn't.

        Of masks none must be: a class that no pixel of a small part shows is left out of the mean.
        """
        if self.masks is not None:
            return []
        return [self.classes[c] for c in np.setdiff1d(np.arange(len(self.classes)), self.labels[indices])]

    def caption(self, index: int) -> str:
        """Return what an image shows, or its name where that takes a mask to say."""
        return self.names[index] if self.masks is not None else self.classes[self.labels[index]]

    def groups_of(self, indices: np.ndarray) -> list[str] | None:
        """Return the name of the group of each of some images; None where there are no groups."""
        return None if self.groups is None else [self.group_names[g] for g in self.groups[indices]]

    def grouped(self, names: Sequence[str], kind: str) -> Self:
        """Return the same data with the group of each image, by name."""
        found, numbers = np.unique(np.asarray(names), return_inverse=True)
        return replace(
            self,
            groups=numbers.astype(np.int64),
            group_names=tuple(map(str, found)),
            group_kind=kind,
            digest=digest([self.digest, numbers.tolist()]),
        )

    def ungrouped(self) -> Self:
        """Return the same data, of which each image stands for itself."""
        if self.groups is None:
            return self
        return replace(self, groups=None, group_names=(), group_kind="", digest=digest([self.digest, "none"]))


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into a data set: int64, disjoint, each in a fixed order."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the three lists of indices."""
        return digest([part.tolist() for part in (self.train, self.val, self.test)])


def stored_side(image_size: int) -> int:
    """Return the side in pixels at which images are stored for an input of `image_size` pixels.

    The ratio 256/224 leaves the margin for random and centre crops that ImageNet practice uses (Krizhevsky et
    al. 2012).
    """
    return round(image_size * 256 / 224)
