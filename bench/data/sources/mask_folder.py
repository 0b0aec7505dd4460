"""A folder of images and masks, with or without train, val and test folders above them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.data.dataset import (
    NO_LABEL,
    TRAIN,
    UNASSIGNED,
    Rejected,
    UnreadableError,
)
from bench.data.decoding import TURNED, UPRIGHT, open_image, orientation
from bench.data.sources.base import (
    Raw,
    Source,
    assign_parts,
    part_named,
)
from bench.data.sources.class_folder import (
    check_is_data,
    entries,
    reason_to_reject,
    shown_name,
    stamp,
)
from bench.study.schema import Target

IMAGES, MASKS = "images", "masks"
_LAYOUT = (
    "put images/ and masks/ with the same file names into the folder, or into its train/, val/ and test/"
)

_OBJECT = [*range(NO_LABEL), 1]  # what each value of a black and white mask becomes

log = logging.getLogger(__name__)


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
    check_is_data(folder, "give a folder with images/ and masks/")
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

    def fingerprint() -> str:
        return digest(["masks", str(root), pairs, classes, target.ignore])

    def read() -> Raw:
        names, parts = [pair.name for pair in pairs], [pair.part for pair in pairs]
        binary = target.ignore is None and are_black_and_white(root / pair.mask for pair in pairs)
        if binary:
            log.warning("the masks in %s hold 0 and 255 only: 255 is taken for class 1", root)

        def read_one(index: int) -> tuple[Image.Image, Image.Image]:
            pair = pairs[index]
            mask = read_mask(root / pair.mask, target.ignore)
            return open_image(root / pair.name), mask.point(_OBJECT) if binary else mask

        return Raw(classes, names, parts, read_one, "not stated", str(root), masks=True)

    summary = "a folder of images and masks"
    return Source(str(folder), summary, "not stated", fingerprint, read, tuple(rejected))


def are_black_and_white(masks: Iterable[Path]) -> bool:
    """Say whether masks hold 0 and 255 and nothing else; of ordinary ones the first one tells."""
    white = False
    for values in map(_values, masks):
        if values - {0, NO_LABEL}:
            return False
        white |= NO_LABEL in values
    return white


def _values(mask: Path) -> set[int]:
    """Return the values that occur in a mask; none where it can't be read, which is named later."""
    try:
        counts = read_mask(mask, None).histogram()
    except (UnreadableError, OSError, ValueError, SyntaxError):
        return set()
    return {value for value, count in enumerate(counts) if count}


def read_mask(file: Path | Image.Image, ignore: int | None) -> Image.Image:
    """Return a mask of one 8-bit channel, with NO_LABEL where it holds `ignore`.

    Raises:
        UnreadableError: for a picture in colours: what class each stands for can't be known.
    """
    image = open_image(file) if isinstance(file, Path) else file
    with image:
        if image.mode not in {"L", "P", "1", "I", "I;16"}:
            raise UnreadableError(f"its mask is a picture in {image.mode}; save the numbers of the classes")
        turned = orientation(image) != UPRIGHT
        values = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
    if values.min() < 0 or values.max() > NO_LABEL:
        raise UnreadableError(
            f"its mask holds values from {values.min()} to {values.max()}; 0 to 255 are valid"
        )
    if ignore is not None:
        values[values == ignore] = NO_LABEL
    mask = Image.fromarray(values.astype(np.uint8))
    mask.info[TURNED] = turned  # by what it says itself
    return mask


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
            (*stamp(images[s]), *stamp(masks[s])),
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
