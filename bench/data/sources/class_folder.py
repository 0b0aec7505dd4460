"""A folder of class folders, with or without train, val and test folders above them."""

import os
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import TRAIN, UNASSIGNED, Rejected
from bench.data.decoding import SUFFIXES, open_image
from bench.data.sources.base import (
    Raw,
    Source,
    assign_parts,
    part_named,
)
from bench.system.locations import MARK, is_marked

_LAYOUT = (
    "put the images of each class into a folder of its own, or those folders into train/, val/ and test/"
)
Entry: TypeAlias = "os.DirEntry[str]"
_FOLDER_LINK = "a link to a folder is not followed"
_OURS = "holds what bench wrote, and no data"


def folder_source(folder: Path) -> Source:
    """Return the source for a folder, which is listed at once (no image is opened).

    `train`, `val` (or `valid`, `validation`) and `test` folders of class folders are taken as the parts, by
    the rule of `assign_parts`; without a `train` folder, the folder itself holds the class folders. Classes
    are named after their folders, sorted. Images may lie deeper inside a class folder. Hidden files are
    passed over; every other file that can't be used is named as left out, as is a link that leads outside,
    a hidden folder, and one that this project wrote (reports, BENCH_HOME, BENCH_CACHE), by the mark in it.

    Raises:
        InputError: for no such folder, one that this project wrote, no images, one class, or an empty class.
    """
    check_is_data(folder, "give an existing folder of class folders")
    listing = _Listing(folder.resolve())
    try:
        listing.collect()
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(error.filename or folder)) from error
    classes = listing.check_classes()

    def fingerprint() -> str:
        return digest([str(listing.root), listing.files])

    def read() -> Raw:
        labels = {name: label for label, name in enumerate(classes)}

        def read_one(index: int) -> tuple[Image.Image, int]:
            file = listing.files[index]
            return open_image(listing.root / file.name), labels[file.class_name]

        names = [file.name for file in listing.files]
        parts = [file.part for file in listing.files]
        return Raw(classes, names, parts, read_one, "not stated", str(listing.root))

    left_out = tuple(listing.rejected)
    return Source(str(folder), "a folder of class folders", "not stated", fingerprint, read, left_out)


def check_is_data(folder: Path, remedy: str) -> None:
    """Raise InputError if there is no such folder, or this project wrote it."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "data", remedy)
    if is_marked(folder):
        raise InputError(f"{folder} {_OURS} ({MARK} is in it)", "data", remedy)


class _File(NamedTuple):
    name: str  # path below the root
    class_name: str
    part: int
    stamp: tuple[int, ...]


class _Listing:
    """What lies in a folder: the files of each class, and what was left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = os.path.join(root, "")  # noqa: PTH118 - ends with a separator, which a Path can't
        self.files: list[_File] = []
        self.rejected: list[Rejected] = []
        self._named: set[Rejected] = set()
        self.classes: set[str] = set()

    def collect(self) -> None:
        top = self._folders(self.root)
        parts = [name for name in top if part_named(name) is not None]
        if len(parts) < len(top):  # else a class is called `train`: images lie in it, and no class folders
            parts = [name for name in parts if any(map(_is_folder, self._inside(top[name].path)))]
        if not any(part_named(name) == TRAIN for name in parts) and len(parts) < len(top):
            parts = []
        if not parts:
            for entry in top.values():
                self._add_class(entry.name, entry.path, UNASSIGNED)
            return
        assigned = assign_parts(parts, str(self.root))
        for entry in top.values():
            if entry.name not in assigned:
                self._reject(entry, "lies beside train/ but is no part of the data")
                continue
            for class_folder in self._folders(entry.path).values():
                self._add_class(class_folder.name, class_folder.path, assigned[entry.name])

    def check_classes(self) -> tuple[str, ...]:
        """Return the class names, sorted; raise InputError where they make no data set."""
        if not self.classes or not (self.files or self.rejected):
            raise InputError("there are no images in class folders", str(self.root), _LAYOUT)
        if len(self.classes) == 1:
            raise InputError(f"there is only one class, '{min(self.classes)}'", str(self.root), _LAYOUT)
        empty = sorted(self.classes - {file.class_name for file in self.files})
        if empty:
            why = next((f", {r.name}: {r.reason}" for r in self.rejected if f"{empty[0]}/" in r.name), "")
            raise InputError(
                f"the class '{empty[0]}' has no usable image{why}",
                str(self.root),
                f"add images ({' '.join(sorted(SUFFIXES))}) or remove the class folder",
            )
        return tuple(sorted(self.classes))

    def _folders(self, parent: str | Path) -> dict[str, Entry]:
        """Return the sub-folders by name; images that lie between them belong to no class."""
        folders = {}
        for entry in self._inside(parent):
            if _is_folder(entry):
                folders[entry.name] = entry
            elif entry.is_symlink() and (reason := reason_to_reject(entry, self.root)):
                self._reject(entry, reason)
            elif suffix(entry) in SUFFIXES:
                self._reject(entry, "lies in no class folder")
        return folders

    def _add_class(self, class_name: str, folder: str, part: int) -> None:
        if self._holds_only_ours(folder):
            self._reject(folder, _OURS)
            return
        self.classes.add(class_name)
        for entry in self._inside(folder):
            if _is_folder(entry):
                self._add_class(class_name, entry.path, part)
            elif reason := reason_to_reject(entry, self.root):
                self._reject(entry, reason)
            else:
                self.files.append(_File(self._name(entry), class_name, part, stamp(entry)))

    def _inside(self, folder: str | Path) -> list[Entry]:
        """Return what lies in a folder and may be data; hidden folders and this project's are left out."""
        inside = []
        for entry in entries(folder, hidden=True):
            if not entry.name.startswith(".") and not (_is_folder(entry) and is_marked(entry.path)):
                inside.append(entry)
            elif _is_folder(entry):
                self._reject(entry, "is hidden" if entry.name.startswith(".") else _OURS)
        return inside

    def _holds_only_ours(self, folder: str) -> bool:
        """Say whether a folder is there for reports alone, as `reports/` is; then it is no class."""
        inside = entries(folder)
        return bool(inside) and all(
            _is_folder(entry) and (is_marked(entry.path) or self._holds_only_ours(entry.path))
            for entry in inside
        )

    def _reject(self, entry: "Entry | str", reason: str) -> None:
        rejected = Rejected(self._name(entry), reason)
        if rejected not in self._named:
            self._named.add(rejected)
            self.rejected.append(rejected)

    def _name(self, entry: "Entry | str") -> str:
        return _shown(os.fspath(entry)[len(self._prefix) :])


def entries(folder: str | Path, *, hidden: bool = False) -> list[Entry]:
    """Return what lies in a folder, sorted by name; hidden entries only where they are asked for."""
    with os.scandir(folder) as found:
        return sorted((e for e in found if hidden or not e.name.startswith(".")), key=lambda e: e.name)


def stamp(entry: Entry) -> tuple[int, ...]:
    """Return what differs once a file was changed or swapped for another, even one of its size and time.

    Whoever sets a file's time (tar, rsync) can't set when that was done, nor keep the inode of another file.
    """
    status = entry.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_folder(entry: Entry) -> bool:
    return entry.is_dir(follow_symlinks=False)


def suffix(entry: Entry) -> str:
    """Return a file's suffix in small letters."""
    return os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - for speed, as above


def shown_name(entry: Entry, root: Path) -> str:
    """Return a file's path below the root."""
    return _shown(os.path.relpath(entry.path, root))


def _shown(name: str) -> str:
    return name if name.isascii() else name.encode(errors="backslashreplace").decode()


def reason_to_reject(entry: Entry, root: Path) -> str:
    """Return why a file is not used, or nothing.

    A GIF holds 256 colours and often an animation or a notice ("image not found") in place of a photograph,
    so only the listed kinds of picture files are taken.
    """
    try:
        if reason := _reason_of_kind(entry, root):
            return reason
    except (OSError, RuntimeError):  # a link that leads to itself, or that may not be followed
        return "a link that can't be followed"
    if "\\udc" in ascii(entry.path):  # how Python keeps bytes that are not UTF-8
        return "its name is not UTF-8"
    if (found := suffix(entry)) not in SUFFIXES:
        return f"{found or 'no suffix'} is not among {' '.join(sorted(SUFFIXES))}"
    return ""


def _reason_of_kind(entry: Entry, root: Path) -> str:
    if entry.is_dir():
        return _FOLDER_LINK if entry.is_symlink() else "a folder between the images"
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
        return "a link that leads out of the folder is not followed"
    return "" if entry.is_file() else "not a regular file"
