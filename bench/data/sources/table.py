"""A table of images: `metadata.csv` as Hugging Face's imagefolder has it, or another CSV file.

Columns: `file_name`, below the table's folder; `label`, or else the class is the folder that the image lies
in; `split` and `group` if there are such. An image whose group is empty stands for itself.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import UNASSIGNED, Rejected
from bench.data.decoding import SUFFIXES, open_image
from bench.data.sources.base import Raw, Source, assign_parts, part_named
from bench.data.sources.class_folder import check_is_data

METADATA = "metadata.csv"
FILE_NAME, LABEL, SPLIT, GROUP = "file_name", "label", "split", "group"
_LAYOUT = "give the columns file_name and label, and split and group if there are such"


class Listed(NamedTuple):
    """An image that a table or a folder names."""

    path: Path
    label: str | None  # None: nobody says
    part: str  # the name of its part; empty: none
    group: str = ""  # empty: it stands for itself


class Entry(NamedTuple):
    """An image that can be used."""

    name: str  # below the root
    label: str
    part: str
    group: str
    stamp: tuple[int, int]  # size and time


def is_table(path: Path) -> bool:
    """Say whether a path is a table of images, or a folder with one that says more than its folders do."""
    if path.is_file():
        return path.suffix.lower() == ".csv"
    try:
        tables = tables_in(path) if path.is_dir() else []
    except OSError:  # whoever reads the folder says so
        return False
    return any({LABEL, GROUP} & set(columns_of(table)) for table, _ in tables)


def tables_in(folder: Path) -> list[tuple[Path, str]]:
    """Return the `metadata.csv` of a folder, or those of its folders train, val and test; and their parts."""
    if (folder / METADATA).is_file():
        return [(folder / METADATA, "")]
    parts = [path for path in sorted(folder.iterdir()) if part_named(path.name) is not None]
    return [(path / METADATA, path.name) for path in parts if (path / METADATA).is_file()]


def table_source(path: Path) -> Source:
    """Return the source of a table, or of a folder with a `metadata.csv`, which are read at once.

    What can't be used is named as left out: files that are not there, have no label or lie outside of the
    table's folder, and pictures in a folder that its `metadata.csv` doesn't name.

    Raises:
        InputError: for a table that can't be read or lacks columns, or no usable image.
    """
    is_folder = path.is_dir()
    root = (path if is_folder else path.parent).resolve()
    check_is_data(root, "give a folder of images, or a table of them")
    tables = tables_in(path) if is_folder else [(path, "")]
    rejected: list[Rejected] = []
    listed = [_with_label(row) for table, part in tables for row in read_table(table, part, (LABEL,))]
    rejected += [Rejected(row.path.name, "has no label") for row in listed if not row.label]
    entries = usable(root, [row for row in listed if row.label], rejected)
    if is_folder:
        rejected += _unlisted(root, listed)
    if not entries:
        why = f" ({rejected[0].name}: {rejected[0].reason})" if rejected else ""
        raise InputError(f"there are no usable images{why}", str(path), _LAYOUT)
    classes = tuple(sorted({entry.label for entry in entries}))
    labels = {name: label for label, name in enumerate(classes)}

    def read() -> Raw:
        def read_one(index: int) -> tuple[Image.Image, int]:
            entry = entries[index]
            return open_image(root / entry.name), labels[entry.label]

        names, parts = [entry.name for entry in entries], parts_of(entries, path)
        origin = str(path.resolve())
        return Raw(classes, names, parts, read_one, "not stated", origin, groups=groups_of(entries))

    identity = digest(["table", str(root), entries])
    return Source(str(path), "a table of images", "not stated", lambda: identity, read, tuple(rejected))


def _with_label(row: Listed) -> Listed:
    """Return a row whose class is the folder that its image lies in, where the table gives none."""
    return row._replace(label=row.path.parent.name) if row.label is None else row


def columns_of(table: Path) -> list[str]:
    """Return the names of a table's columns."""
    return _read(table)[0]


def read_table(table: Path, part: str, labels: Sequence[str]) -> Iterator[Listed]:
    """Yield the rows of a table.

    Args:
        table: a CSV file.
        part: the name of the part that its folder is of; a column `split` goes before it.
        labels: what the column of labels may be called.

    Raises:
        InputError: if it can't be read, lacks the column `file_name`, or names a split that there is not.
    """
    columns, rows = _read(table)
    if FILE_NAME not in columns:
        raise InputError(f"has the columns {', '.join(columns) or 'none'}", str(table), _LAYOUT)
    label = next((name for name in labels if name in columns), None)
    for row in rows:
        given = _cell(row, SPLIT) or part
        if given and part_named(given) is None:
            raise InputError(f"unknown split '{given}'", str(table), "say train, val or test")
        text = None if label is None else _cell(row, label)
        yield Listed(table.parent / _cell(row, FILE_NAME), text, given, _cell(row, GROUP))


def usable(root: Path, listed: Iterable[Listed], rejected: list[Rejected]) -> list[Entry]:
    """Return the images that can be used, by name; name the others in `rejected`."""
    entries: dict[str, Entry] = {}
    for row in listed:
        try:
            inside = row.path.resolve()
            name = str(inside.relative_to(root)) if inside.is_relative_to(root) else row.path.name
            reason = _reason(root, inside, name, entries)
        except (OSError, RuntimeError, ValueError):  # a link to itself, a name too long or with a zero in it
            name, reason = row.path.name, "can't be followed"
        if reason:
            rejected.append(Rejected(name, reason))
            continue
        status = inside.stat()
        stamp = status.st_size, status.st_mtime_ns
        entries[name] = Entry(name, row.label or "", row.part, row.group, stamp)
    return [entries[name] for name in sorted(entries)]


def parts_of(entries: Sequence[Entry], where: Path) -> list[int]:
    """Return the part of each image: those that are named, by the rule of `assign_parts`."""
    names = {entry.part for entry in entries if entry.part}
    parts = {"": UNASSIGNED, **(assign_parts(names, str(where)) if names else {})}
    return [parts[entry.part] for entry in entries]


def groups_of(entries: Sequence[Entry]) -> list[str]:
    """Return the group of each image, which is itself where it has none; nothing where none has any."""
    if not any(entry.group for entry in entries):
        return []
    return [entry.group or entry.name for entry in entries]


def _reason(root: Path, path: Path, name: str, entries: dict[str, Entry]) -> str:
    """Return why an image is not used, or nothing."""
    if not path.is_relative_to(root):
        return "lies outside of the folder"
    if name in entries:
        return "is listed twice"
    if not path.is_file():
        return "is not there"
    return "" if path.suffix.lower() in SUFFIXES else f"{path.suffix or 'no suffix'} is no kind of picture"


def _unlisted(root: Path, listed: Iterable[Listed]) -> list[Rejected]:
    """Name the pictures in a folder that its tables don't."""
    known = {row.path for row in listed}
    found = [
        path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES and path not in known
    ]
    names = [path.relative_to(root) for path in found]
    return [
        Rejected(str(name), f"is not in {METADATA}")
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    ]


def _cell(row: Mapping[str, Any], column: str) -> str:
    return (row.get(column) or "").strip()


def _read(table: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return a table's columns and rows."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            return list(rows.fieldnames or ()), list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"can't be read ({error})", str(table)) from error
