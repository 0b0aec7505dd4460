"""Where images come from: the record of a source, and what it hands to the store before decoding."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.errors import InputError, closest, nearest
from bench.core.registry import Registry
from bench.data.dataset import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
    Rejected,
)

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Raw:
    """A data set before decoding.

    Args:
        classes: class names; empty where only the labels are known (then the labels become the names).
        names: a name for each image that a person can find it by.
        parts: TRAIN, VAL, TEST or UNASSIGNED for each image.
        read: returns image i, opened but best not yet decoded, and its label, or its mask of the same size
            (one 8-bit channel, NO_LABEL where there is none); called from several threads.
        licence: of the data, as their source states it.
        origin: a folder, a package with its version, a URL.
        rejected: files that are known to be unusable before any is opened.
        masks: whether images have masks.
        groups: the name of each image's group; empty where images don't belong together.
        group_kind: what a group is, in the singular.
    """

    classes: tuple[str, ...]
    names: Sequence[str]
    parts: Sequence[int]
    read: Callable[[int], tuple["Image.Image", "int | Image.Image"]]
    licence: str
    origin: str
    rejected: tuple[Rejected, ...] = ()
    masks: bool = False
    groups: Sequence[str] = ()
    group_kind: str = "group"


@dataclass(frozen=True)
class Source:
    """A source of images.

    Args:
        name: what a study's `target.data` says.
        summary, licence: one line each, for `bench list datasets`.
        fingerprint: returns, without decoding or a heavy import, a text that no other source has and that
            changes when the images do.
        read: lists the images, downloading them where that is needed; raises InputError if it can't.
        left_out: files that are known to be unusable before any is read; not in the fingerprint.
    """

    name: str
    summary: str
    licence: str
    fingerprint: Callable[[], str]
    read: Callable[[], Raw]
    left_out: tuple[Rejected, ...] = ()


SOURCES: Registry[Source] = Registry("data set")
MASK_SOURCES: Registry[Source] = Registry("data set with masks")

_PART_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}


def part_named(name: str) -> int | None:
    """Return the part that a folder or split of this name holds, or None."""
    return _PART_NAMES.get(name.lower())


def assign_parts(names: Collection[str], where: str) -> dict[str, int]:
    """Return which part each named part of a data set becomes here.

    With train, val and test, each is itself. With train and test, val is cut from train later. With train and
    val but no test, val is what was held out, so it becomes TEST and a new val is cut from train: a val that
    chose hyperparameters can't also be the result. With train alone nothing is assigned.

    Raises:
        InputError: if there is no train, or two names mean the same part.
    """
    parts = {name: _PART_NAMES[name.lower()] for name in names}
    if len(set(parts.values())) < len(parts):
        raise InputError(f"two parts mean the same: {', '.join(sorted(names))}", where, "keep one of them")
    if TRAIN not in parts.values():
        raise InputError(
            f"there is {', '.join(sorted(names))} but no train", where, "name the training part 'train'"
        )
    if set(parts.values()) == {TRAIN}:
        return dict.fromkeys(parts, UNASSIGNED)
    if TEST not in parts.values():
        return {name: TEST if part == VAL else part for name, part in parts.items()}
    return parts


def unknown_data(name: str, what: str, known: Iterable[str]) -> InputError:
    """Return the error for a `target.data` that names nothing, with the nearest name that does."""
    valid, folder = nearest(name, known), "give a folder with --data DIR"
    remedy = f"{valid} Otherwise {folder}" if closest(name, known) else f"{folder}; {valid}"
    return InputError(f"'{name}' is {what}", "target.data", remedy)
