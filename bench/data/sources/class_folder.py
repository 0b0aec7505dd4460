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

_LAYOUT = (
    "put the images of each class into a folder of its own, or those folders into train/, val/ and test/"
)
Entry: TypeAlias = "os.DirEntry[str]"
_FOLDER_LINK = "a link to a folder is not followed"


def folder_source(folder: Path) -> Source:
    """Return the source for a folder, which is listed at once (no image is opened).

    `train`, `val` (or `valid`, `validation`) and `test` folders of class folders are taken as the parts, by
    the rule of `assign_parts`; without a `train` folder, the folder itself holds the class folders. Classes
    are named after their folders, sorted. Images may lie deeper inside a class folder. Hidden files are
    passed over; every other file that can't be used is named as rejected, as is a link that leads outside.

    Raises:
        InputError: for no such folder, no images, one class, or a class without images.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "data", "give an existing folder of class folders")
    listing = _Listing(folder.resolve())
    try:
        listing.collect()
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(error.filename or folder)) from error
    classes = listing.check_classes()

    def fingerprint() -> str:
        return digest(
            [str(listing.root), listing.files, sorted((r.name, r.reason) for r in listing.rejected)]
        )

    def read() -> Raw:
        labels = {name: label for label, name in enumerate(classes)}

        def read_one(index: int) -> tuple[Image.Image, int]:
            file = listing.files[index]
            return open_image(listing.root / file.name), labels[file.class_name]

        names = [file.name for file in listing.files]
        parts = [file.part for file in listing.files]
        rejected = tuple(listing.rejected)
        return Raw(classes, names, parts, read_one, "not stated", str(listing.root), rejected)

    return Source(str(folder), "a folder of class folders", "not stated", fingerprint, read)


class _File(NamedTuple):
    name: str  # path below the root
    class_name: str
    part: int
    size_bytes: int
    modified_ns: int


class _Listing:
    """What lies in a folder: the files of each class, and what was left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = os.path.join(root, "")  # noqa: PTH118 - ends with a separator, which a Path can't
        self.files: list[_File] = []
        self.rejected: list[Rejected] = []
        self.classes: set[str] = set()

    def collect(self) -> None:
        top = self._folders(self.root)
        parts = [name for name in top if part_named(name) is not None]
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
        for entry in entries(parent):
            if entry.is_dir(follow_symlinks=False):
                folders[entry.name] = entry
            elif entry.is_dir():
                self._reject(entry, _FOLDER_LINK)
            elif suffix(entry) in SUFFIXES:
                self._reject(entry, "lies in no class folder")
        return folders

    def _add_class(self, class_name: str, folder: str, part: int) -> None:
        self.classes.add(class_name)
        for entry in entries(folder):
            if entry.is_dir(follow_symlinks=False):
                self._add_class(class_name, entry.path, part)
            elif reason := reason_to_reject(entry, self.root):
                self._reject(entry, reason)
            else:
                status = entry.stat()
                self.files.append(
                    _File(self._name(entry), class_name, part, status.st_size, status.st_mtime_ns)
                )

    def _reject(self, entry: Entry, reason: str) -> None:
        self.rejected.append(Rejected(self._name(entry), reason))

    def _name(self, entry: Entry) -> str:
        return _shown(entry.path[len(self._prefix) :])


def entries(folder: str | Path) -> list[Entry]:
    """Return what lies in a folder, sorted by name, without hidden entries."""
    with os.scandir(folder) as found:
        return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)


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
    if entry.is_dir():
        return _FOLDER_LINK
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
        return "a link that leads out of the folder is not followed"
    if not entry.is_file():
        return "not a regular file"
    if "\\udc" in ascii(entry.path):  # how Python keeps bytes that are not UTF-8
        return "its name is not UTF-8"
    if (found := suffix(entry)) not in SUFFIXES:
        return f"{found or 'no suffix'} is not among {' '.join(sorted(SUFFIXES))}"
    return ""
