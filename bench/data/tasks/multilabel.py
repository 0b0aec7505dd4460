"""Data of multi-label classification: a `metadata.csv`, or a list of labels beside each image.

Splits are stratified by label set where a set has COMMON images or more, and else by the rarest of an image's
labels, so that labels with few images are spread as evenly as can be.
"""

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import UNASSIGNED, Dataset, Rejected, stored_side
from bench.data.decoding import SUFFIXES, open_image
from bench.data.image_store import open_or_decode
from bench.data.sources.base import Raw, Source, assign_parts, part_named
from bench.study.schema import Target
from bench.system.locations import expanded

COMMON = 10  # images of a label set from which on it is a stratum of its own
METADATA, IMAGES, LABELS = "metadata.csv", "images", "labels"
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


class _Entry(NamedTuple):
    name: str  # of the image, below the root
    labels: tuple[str, ...]
    part: str  # the name of its part; empty: none
    stamp: tuple[int, int]  # size and time


def load(target: Target, folder: Path | None) -> LabelSets:
    """Return the decoded images of a folder with their label sets; `folder` replaces the target's data."""
    root = folder if folder is not None else expanded(target.data)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", "data" if folder else "target.data", LAYOUT)
    root = root.resolve()
    rejected: list[Rejected] = []
    try:
        entries = _usable(root, [*_listed(root)], rejected)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"can't be read ({error})", str(root)) from error
    _check(root, entries, rejected)
    sets = sorted({entry.labels for entry in entries})
    stored = open_or_decode(_source(root, entries, sets, rejected), stored_side(target.image_size))
    return _with_labels(stored, [sets[int(number)] for number in stored.classes])


def _source(
    root: Path, entries: list[_Entry], sets: list[tuple[str, ...]], rejected: list[Rejected]
) -> Source:
    """Return the source of images, whose one label is the number of their label set."""
    numbers = {labels: number for number, labels in enumerate(sets)}
    names = {entry.part for entry in entries if entry.part}
    parts = {"": UNASSIGNED, **(assign_parts(names, str(root)) if names else {})}

    def read_one(index: int) -> tuple[Image.Image, int]:
        return open_image(root / entries[index].name), numbers[entries[index].labels]

    def read() -> Raw:
        assigned = [parts[entry.part] for entry in entries]
        shown = [entry.name for entry in entries]
        return Raw((), shown, assigned, read_one, "not stated", str(root), tuple(rejected))

    left_out = [(r.name, r.reason) for r in rejected]
    identity = digest(["multilabel", str(root), entries, left_out])
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


def _listed(root: Path) -> Iterator[tuple[Path, list[str], str]]:
    """Yield each image that is named, with its labels and the name of its part (or nothing)."""
    parts = [
        path.name for path in sorted(root.iterdir()) if path.is_dir() and part_named(path.name) is not None
    ]
    if (root / METADATA).is_file():
        yield from _from_metadata(root, "")
    elif (root / IMAGES).is_dir():
        yield from _from_lists(root, "")
    else:
        for part in parts:
            read = _from_metadata if (root / part / METADATA).is_file() else _from_lists
            yield from read(root / part, part)


def _from_metadata(folder: Path, part: str) -> Iterator[tuple[Path, list[str], str]]:
    """Yield the rows of a `metadata.csv`, as Hugging Face's imagefolder has it."""
    where = str(folder / METADATA)
    with (folder / METADATA).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        column = next((name for name in LABEL_COLUMNS if name in columns), None)
        if "file_name" not in columns or column is None:
            raise InputError(f"has the columns {', '.join(columns) or 'none'}", where, LAYOUT)
        for row in rows:
            given = (row.get("split") or "").strip() or part
            if given and part_named(given) is None:
                raise InputError(f"unknown split '{given}'", where, "say train, val or test")
            yield folder / (row["file_name"] or ""), _labels(row[column] or ""), given


def _from_lists(folder: Path, part: str) -> Iterator[tuple[Path, list[str], str]]:
    """Yield the images of `images/` with the lines of the text file of the same name in `labels/`."""
    if not (folder / IMAGES).is_dir():
        raise InputError(f"there is neither {METADATA} nor {IMAGES}/", str(folder), LAYOUT)
    for image in sorted((folder / IMAGES).iterdir()):
        if image.suffix.lower() in SUFFIXES:
            texts = (folder / LABELS / image.with_suffix(".txt").name).read_text(encoding="utf-8-sig")
            yield image, [label for line in texts.splitlines() for label in _labels(line)], part


def _labels(text: str) -> list[str]:
    return [label.strip() for label in text.replace("|", ";").split(";") if label.strip()]


def _usable(root: Path, listed: list[tuple[Path, list[str], str]], rejected: list[Rejected]) -> list[_Entry]:
    """Return the images that can be used, by name; name the others in `rejected`."""
    entries: dict[str, _Entry] = {}
    for path, labels, part in listed:
        inside = path.resolve()
        name = str(inside.relative_to(root)) if inside.is_relative_to(root) else str(path.name)
        if reason := _reason(root, inside, name, entries):
            rejected.append(Rejected(name, reason))
            continue
        status = inside.stat()
        entries[name] = _Entry(name, tuple(sorted(set(labels))), part, (status.st_size, status.st_mtime_ns))
    return [entries[name] for name in sorted(entries)]


def _reason(root: Path, path: Path, name: str, entries: dict[str, _Entry]) -> str:
    """Return why an image is not used, or nothing."""
    if not path.is_relative_to(root):
        return "lies outside of the folder"
    if name in entries:
        return "is listed twice"
    if not path.is_file():
        return "is not there"
    return "" if path.suffix.lower() in SUFFIXES else f"{path.suffix or 'no suffix'} is no kind of picture"


def _check(root: Path, entries: list[_Entry], rejected: list[Rejected]) -> None:
    why = f" ({rejected[0].name}: {rejected[0].reason})" if rejected else ""
    if not entries:
        raise InputError(f"there are no images with labels{why}", str(root), LAYOUT)
    labels = {label for entry in entries for label in entry.labels}
    if len(labels) < 2:
        raise InputError(f"there are fewer than two labels{why}", str(root), LAYOUT)
    if len({entry.labels for entry in entries}) < 2:
        raise InputError("all images have the same labels", str(root), "give images that differ in them")
