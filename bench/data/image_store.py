"""The store of decoded images: each set is decoded once, checked, and memory-mapped from then on.

An entry `images/<key>/` is two files: `images.u8`, the pixels of all images one after the other, and
`meta.json`, all else with a checksum; with masks, `masks.u8` is a third. It is written to a temporary folder
and renamed; a lock makes the second process wait for the first.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import InputError
from bench.core.hashing import canonical_json, digest
from bench.data.conversion import convert, pixel_digest
from bench.data.dataset import Dataset, Rejected
from bench.data.sources.base import Raw, Source
from bench.system import locations, locks

RECIPE = 1  # raise it when the same files would be decoded to other pixels
_PIXELS, _MASKS, _META = "images.u8", "masks.u8", "meta.json"

log = logging.getLogger(__name__)


def open_or_decode(source: Source, side: int) -> Dataset:
    """Return the decoded data set of a source, from the store if it is there and sound.

    Args:
        source: what to decode.
        side: pixels; images are stored at side x side, or at their own size if all are equal smaller squares.

    Raises:
        InputError: if the source has no usable images, or the store can't be written.
    """
    folder = locations.cache() / "images"
    recipe = [RECIPE, version("pillow")]  # another decoder may give other pixels
    key = digest({"source": source.fingerprint(), "side": side, "recipe": recipe})
    entry = folder / key
    if dataset := _open(entry, source.name):
        return dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.locked(folder / f"{key}.lock"):
            if dataset := _open(entry, source.name):  # another process was faster
                return dataset
            _remove_remains(folder, key)
            _write(entry, source.read(), side)
    except OSError as error:
        raise InputError(
            f"the image store can't be written ({error.strerror or error})",
            str(folder),
            "free some space, or set BENCH_CACHE to another folder",
        ) from error
    dataset = _open(entry, source.name)
    assert dataset, f"{entry} was just written and is not sound"
    return dataset


def _open(entry: Path, name: str) -> Dataset | None:
    """Return the entry, or None if it is absent or not sound.

    Hashing the pixels at every start would take seconds for a large set. So they are hashed only if their
    file was touched since it was written (its time differs); the time is put right once they prove sound.
    """
    try:
        meta = _read_meta(entry)
        return _dataset(name, *_map_pixels(entry, meta), meta)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the stored images in %s are damaged (%s) and are decoded again", entry, error)
        return None


def _read_meta(entry: Path) -> dict[str, Any]:
    stored = json.loads((entry / _META).read_text(encoding="utf-8"))
    if digest(stored["meta"]) != stored["checksum"]:
        raise ValueError(f"{_META} does not match its checksum")
    return dict(stored["meta"])


def _map_pixels(entry: Path, meta: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images and masks."""
    files = [(entry / _PIXELS, tuple(meta["shape"]))]
    if meta.get("masks"):
        files.append((entry / _MASKS, tuple(meta["shape"][:3])))
    touched = False
    for file, shape in files:
        status = file.stat()
        if status.st_size != int(np.prod(shape)):
            raise ValueError(f"{file.name} has the wrong length")
        touched |= status.st_mtime_ns != meta["written_ns"]
    images, *masks = (np.memmap(file, dtype=np.uint8, mode="r", shape=shape) for file, shape in files)
    if touched:
        if pixel_digest(images, masks[0] if masks else None, meta) != meta["digest"]:
            raise ValueError(f"{_PIXELS} does not match its checksum")
        with contextlib.suppress(OSError):  # a copy that can only be read: it is hashed at every start
            _stamp(entry, meta)
    return images, masks[0] if masks else None


def _stamp(entry: Path, meta: dict[str, Any]) -> None:
    """Give the files of pixels the time that says that nobody has touched them."""
    for name in (_PIXELS, _MASKS):
        if (entry / name).exists():
            os.utime(entry / name, ns=(meta["written_ns"], meta["written_ns"]))


def _dataset(name: str, images: np.ndarray, masks: np.ndarray | None, meta: dict[str, Any]) -> Dataset:
    return Dataset(
        name=name,
        classes=tuple(meta["classes"]),
        images=images,
        labels=np.array(meta["labels"], dtype=np.int64),
        parts=np.array(meta["parts"], dtype=np.int8),
        names=tuple(meta["names"]),
        digest=meta["digest"],
        rejected=tuple(Rejected(*pair) for pair in meta["rejected"]),
        licence=meta["licence"],
        origin=meta["origin"],
        masks=masks,
    )


def _remove_remains(folder: Path, key: str) -> None:
    """Remove what a killed process left, and a damaged entry; only the holder of the lock may."""
    for path in [folder / key, *folder.glob(f".{key}.*")]:
        shutil.rmtree(path, ignore_errors=True)


def _write(entry: Path, raw: Raw, side: int) -> None:
    log.info("decoding %d images of %s", len(raw.names), raw.origin)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        meta = convert(raw, side, temporary / _PIXELS, temporary / _MASKS)
        meta["written_ns"] = (temporary / _PIXELS).stat().st_mtime_ns
        _stamp(temporary, meta)
        text = canonical_json({"meta": meta, "checksum": digest(meta)})
        (temporary / _META).write_text(text, encoding="utf-8")
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
