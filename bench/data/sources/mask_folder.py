"""A folder of images and masks, with or without train, val and test folders above them."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import (
    NO_LABEL,
    TRAIN,
    UNASSIGNED,
    Rejected,
    UnreadableError,
)
from bench.data.decoding import open_image
from bench.data.sources.base import (
    Raw,
    Source,
    assign_parts,
    part_named,
)
from bench.data.sources.class_folder import entries, reason_to_reject, shown_name
from bench.study.schema import Target

IMAGES, MASKS = "images", "masks"
_LAYOUT = (
    "put images/ and masks/ with the same file names into the folder, or into its train/, val/ and test/"
)


class _Pair(NamedTuple):
    name: str  # of the image, below the root
    mask: str
    part: int
    stamp: tuple[int, ...]  # sizes and times of both


def mask_folder_source(folder: Path, target: Target) -> Source:
    """Return the source for a folder of images and masks, which is listed at once (nothing is opened).

    `images/` and `masks/` lie in the folder itself or in its `train`, `val` and `test` folders, which are
    taken by the rule of `assign_parts`. An image and its mask have the same name but for the suffix. A mask
    has one channel: each pixel is the number of its class; 255 and `target.ignore` are no label. What has no
    partner is named as rejected.

    Raises:
        InputError: for no such folder or no pairs.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "data", "give a folder with images/ and masks/")
    root = folder.resolve()
    rejected: list[Rejected] = []
    try:
        pairs = _list_pairs(root, rejected)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(error.filename or folder)) from error
    if not pairs:
        why = f" ({rejected[0].name}: {rejected[0].reason})" if rejected else ""
        raise InputError(f"there are no images with masks{why}", str(root), _LAYOUT)
    classes = target.classes or ()

    def read_one(index: int) -> tuple[Image.Image, Image.Image]:
        pair = pairs[index]
        return open_image(root / pair.name), read_mask(root / pair.mask, target.ignore)

    def fingerprint() -> str:
        left_out = sorted((r.name, r.reason) for r in rejected)
        return digest(["masks", str(root), pairs, left_out, classes, target.ignore])

    def read() -> Raw:
        names, parts = [pair.name for pair in pairs], [pair.part for pair in pairs]
        return Raw(classes, names, parts, read_one, "not stated", str(root), tuple(rejected), masks=True)

    return Source(str(folder), "a folder of images and masks", "not stated", fingerprint, read)


def read_mask(file: Path | Image.Image, ignore: int | None) -> Image.Image:
    """Return a mask of one 8-bit channel, with NO_LABEL where it holds `ignore`.

    Raises:
        UnreadableError: for a picture in colours: what class each stands for can't be known.
    """
    image = open_image(file) if isinstance(file, Path) else file
    with image:
        if image.mode not in {"L", "P", "1", "I", "I;16"}:
            raise UnreadableError(f"its mask is a picture in {image.mode}; save the numbers of the classes")
        values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > NO_LABEL:
        raise UnreadableError(
            f"its mask holds values from {values.min()} to {values.max()}; 0 to 255 are valid"
        )
    if ignore is not None:
        values[values == ignore] = NO_LABEL
    return Image.fromarray(values.astype(np.uint8))


def _list_pairs(root: Path, rejected: list[Rejected]) -> list[_Pair]:
    named = [
        e.name for e in entries(root) if e.is_dir(follow_symlinks=False) and part_named(e.name) is not None
    ]
    if not any(part_named(name) == TRAIN for name in named):
        return _pairs_in(root, root, UNASSIGNED, rejected)
    assigned = assign_parts(named, str(root))
    return [pair for name, part in assigned.items() for pair in _pairs_in(root / name, root, part, rejected)]


def _pairs_in(folder: Path, root: Path, part: int, rejected: list[Rejected]) -> list[_Pair]:
    for name in (IMAGES, MASKS):
        if not (folder / name).is_dir() or (folder / name).is_symlink():
            raise InputError(f"there is no folder {name}/", str(folder), _LAYOUT)
    images = _files(folder / IMAGES, root, rejected)
    masks = _files(folder / MASKS, root, rejected)
    for stem in sorted(images.keys() ^ masks.keys()):
        lonely, other = (images[stem], "mask") if stem in images else (masks[stem], "image")
        rejected.append(Rejected(shown_name(lonely, root), f"has no {other} of the same name"))
    return [
        _Pair(
            shown_name(images[s], root),
            shown_name(masks[s], root),
            part,
            (*_stamp(images[s]), *_stamp(masks[s])),
        )
        for s in sorted(images.keys() & masks.keys())
    ]


def _files(folder: Path, root: Path, rejected: list[Rejected]) -> "dict[str, os.DirEntry[str]]":
    """Return the usable files of a folder by name without suffix; of two that share it, the first."""
    files: dict[str, os.DirEntry[str]] = {}
    for entry in entries(folder):
        stem = os.path.splitext(entry.name)[0]  # noqa: PTH122 - for speed, as in a folder of classes
        reason = reason_to_reject(entry, root) or ("another file has this name" if stem in files else "")
        if reason:
            rejected.append(Rejected(shown_name(entry, root), reason))
        else:
            files[stem] = entry
    return files


def _stamp(entry: "os.DirEntry[str]") -> tuple[int, int]:
    status = entry.stat()
    return status.st_size, status.st_mtime_ns
