"""Data of multi-label classification: a `metadata.csv`, or a list of labels beside each image.

Splits are stratified by label set where a set has COMMON images or more, and else by the rarest of an image's
labels, so that labels with few images are spread as evenly as can be.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import Dataset, Rejected, stored_side
from bench.data.decoding import SUFFIXES, open_image, to_square
from bench.data.framing import Framing
from bench.data.image_store import open_or_decode
from bench.data.sources.base import Raw, Source, part_named
from bench.data.sources.table import (
    METADATA,
    Entry,
    Listed,
    columns_of,
    groups_of,
    is_table,
    parts_of,
    read_table,
    usable,
)
from bench.study.schema import Target
from bench.system.locations import expanded

COMMON = 10  # images of a label set from which on it is a stratum of its own
IMAGES, LABELS = "images", "labels"
LAYOUT = (
    f"give a {METADATA} with the columns file_name and labels (separated by ; or |), or {IMAGES}/ and "
    f"{LABELS}/ with a text file of labels for each image"
)
LABEL_COLUMNS = ("labels", "label")


@dataclass(frozen=True, eq=False)
class LabelSets(Dataset):
    """A data set whose images have any number of the classes; `labels` are the strata of splits.

    Args:
        label_sets: uint8, shape (N, classes): 1 where an image has the class.
    """

    label_sets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))

    def missing_classes(self, indices: np.ndarray) -> list[str]:
        """Return the classes that no image of a part has."""
        return [self.classes[c] for c in np.flatnonzero(~self.label_sets[indices].any(0))]

    def caption(self, index: int) -> str:
        """Return the classes of an image."""
        shown = [self.classes[c] for c in np.flatnonzero(self.label_sets[index])]
        return "; ".join(shown) or "no label"


def load(target: Target, folder: Path | None) -> LabelSets:
    """Return the decoded images of a folder or table with their label sets; `folder` replaces its data."""
    path = folder if folder is not None else expanded(target.data)
    if not (path.is_dir() or is_table(path)):
        raise InputError(f"there is no folder {path}", "data" if folder else "target.data", LAYOUT)
    root = (path if path.is_dir() else path.parent).resolve()
    rejected: list[Rejected] = []
    try:
        entries = usable(root, [*_listed(path.resolve())], rejected)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error})", str(path)) from error
    label_sets = [tuple(sorted(set(_labels(entry.label)))) for entry in entries]
    _check(root, label_sets, rejected)
    sets = sorted(set(label_sets))
    source, side = _source(root, entries, label_sets, rejected), stored_side(target.image_size)
    stored = open_or_decode(source, side, target.fit)
    return _with_labels(stored, [sets[int(number)] for number in stored.classes])


def to_stored(image: Image.Image, side: int, framing: Framing) -> np.ndarray:
    """Return a picture as it would be stored at a side: uint8, shape (side, side, 3)."""
    return to_square(image, side, framing)


def _source(
    root: Path, entries: list[Entry], label_sets: list[tuple[str, ...]], rejected: list[Rejected]
) -> Source:
    """Return the source of images, whose one label is the number of their label set."""
    numbers = {labels: number for number, labels in enumerate(sorted(set(label_sets)))}

    def read_one(index: int) -> tuple[Image.Image, int]:
        return open_image(root / entries[index].name), numbers[label_sets[index]]

    def read() -> Raw:
        shown, parts, groups = [entry.name for entry in entries], parts_of(entries, root), groups_of(entries)
        return Raw((), shown, parts, read_one, "not stated", str(root), tuple(rejected), groups=groups)

    left_out = [(r.name, r.reason) for r in rejected]
    identity = digest(["multilabel", str(root), entries, label_sets, left_out])
    return Source(str(root), "a folder of images with labels", "not stated", lambda: identity, read)


def _with_labels(stored: Dataset, sets: list[tuple[str, ...]]) -> LabelSets:
    """Return a stored data set, whose labels number label sets, with the sets as a matrix."""
    classes = tuple(sorted({label for labels in sets for label in labels}))
    rows = np.array([[label in labels for label in classes] for labels in sets], np.uint8)
    label_sets = rows[stored.labels]
    facts = {name.name: getattr(stored, name.name) for name in dataclasses.fields(stored)}
    facts |= {
        "classes": classes,
        "labels": strata(label_sets, stored.labels),
        "digest": digest([stored.digest, classes, sets]),
    }
    return LabelSets(**facts, label_sets=label_sets)


def strata(label_sets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the stratum of each image, int64, shape (N,).

    Args:
        label_sets: shape (N, classes).
        numbers: of each image's label set, shape (N,).
    """
    images, classes = label_sets.sum(0), label_sets.shape[1]
    rarest = np.where(label_sets > 0, images, len(numbers) + 1).argmin(1)
    rarest = np.where(label_sets.any(1), rarest, classes)
    common = np.bincount(numbers)[numbers] >= COMMON
    return np.asarray(np.where(common, classes + 1 + numbers, rarest), dtype=np.int64)


def _listed(path: Path) -> Iterator[Listed]:
    """Yield each image that is named, by a table or by lists of labels."""
    if path.is_file():
        yield from _from_table(path, "")
    elif (path / METADATA).is_file() or (path / IMAGES).is_dir():
        yield from _in_folder(path, "")
    else:
        for inside in sorted(path.iterdir()):
            if inside.is_dir() and part_named(inside.name) is not None:
                yield from _in_folder(inside, inside.name)


def _in_folder(folder: Path, part: str) -> Iterator[Listed]:
    table = folder / METADATA
    yield from _from_table(table, part) if table.is_file() else _from_lists(folder, part)


def _from_table(table: Path, part: str) -> Iterator[Listed]:
    columns = columns_of(table)
    if not set(LABEL_COLUMNS) & set(columns):
        raise InputError(f"has the columns {', '.join(columns) or 'none'}", str(table), LAYOUT)
    yield from read_table(table, part, LABEL_COLUMNS)


def _from_lists(folder: Path, part: str) -> Iterator[Listed]:
    """Yield the images of `images/` with the lines of the text file of the same name in `labels/`."""
    if not (folder / IMAGES).is_dir():
        raise InputError(f"there is neither {METADATA} nor {IMAGES}/", str(folder), LAYOUT)
    for image in sorted((folder / IMAGES).iterdir()):
        if image.suffix.lower() in SUFFIXES:
            texts = (folder / LABELS / image.with_suffix(".txt").name).read_text(encoding="utf-8-sig")
            yield Listed(image, ";".join(texts.splitlines()), part)


def _labels(text: str) -> list[str]:
    return [label.strip() for label in text.replace("|", ";").split(";") if label.strip()]


def _check(root: Path, label_sets: list[tuple[str, ...]], rejected: list[Rejected]) -> None:
    why = f" ({rejected[0].name}: {rejected[0].reason})" if rejected else ""
    if not label_sets:
        raise InputError(f"there are no images with labels{why}", str(root), LAYOUT)
    if len({label for labels in label_sets for label in labels}) < 2:
        raise InputError(f"there are fewer than two labels{why}", str(root), LAYOUT)
    if len(set(label_sets)) < 2:
        raise InputError("all images have the same labels", str(root), "give images that differ in them")
