"""The store of decoded images: each set is decoded once, checked, memory-mapped from then on, and bounded.

An entry `images/<key>/` is two files: `images.u8`, the pixels of all images one after the other, and
`meta.json`, all else with a checksum; with masks, `masks.u8` is a third. It is written to a temporary folder
and renamed; a lock makes the second process wait for the first. Who uses an entry holds `<key>.use` shared:
when the store is full the least recently used entries go first, and none that is in use.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import InputError
from bench.core.hashing import canonical_json, digest
from bench.core.versions import IMAGES
from bench.data.conversion import convert
from bench.data.dataset import Dataset, Rejected
from bench.data.framing import Fit, Framing
from bench.data.sources.base import Raw, Source
from bench.system import locations, locks

DEFAULT_LIMIT = 20e9  # bytes
_PIXELS, _MASKS, _META = "images.u8", "masks.u8", "meta.json"
_CHUNK = 1 << 24  # bytes that are summed at a time

log = logging.getLogger(__name__)

_in_use: dict[Path, int] = {}  # entry to the handle of its lock, held as long as this process lives
_sound: set[tuple[int, ...]] = set()  # device, inode, size and change time of files whose sum was right


def open_or_decode(source: Source, side: int, fit: Fit | None = None) -> Dataset:
    """Return the decoded data set of a source, from the store if it is there and sound.

    Args:
        source: what to decode.
        side: pixels; images are stored at side x side, or at their own size if all are equal smaller squares.
        fit: how pictures that are no squares become some; None: as suits them.

    Raises:
        InputError: if the source can't be read or has no usable images, or the store can't be written.
    """
    folder = _folder()
    recipe = [IMAGES, version("pillow")]  # another decoder may give other pixels
    wanted = {"fit": fit} if fit else {}
    key = digest({"source": source.fingerprint(), "side": side, "recipe": recipe, **wanted})
    entry = folder / key
    if dataset := _open(entry, source):
        return dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.locked(folder / f"{key}.lock"):
            if dataset := _open(entry, source):  # another process was faster
                return dataset
            _remove_remains(folder, key)
            raw = _read(source)
            _make_room(len(raw.names) * side**2 * (4 if raw.masks else 3))
            _write(entry, raw, side, fit)
    except OSError as error:
        raise InputError(
            f"the image store can't be written ({error.strerror or error})",
            str(folder),
            "free some space, or set BENCH_CACHE to another folder",
        ) from error
    dataset = _open(entry, source)
    assert dataset, f"{entry} was just written and is not sound"
    return dataset


def sizes() -> dict[str, int]:
    """Return the bytes that each decoded data set takes, by key, the least recently used first."""
    return {entry.name: _size(entry) for entry in sorted(_entries(), key=_last_used)}


def clear() -> int:
    """Remove all decoded images but those that a process uses; return how many bytes that freed."""
    return sum(_size(entry) * _remove_unused(entry) for entry in _entries())


def limit_bytes() -> float:
    """Return the bytes that the store may take: `BENCH_IMAGES_GB`, else 20 GB."""
    text = os.environ.get("BENCH_IMAGES_GB", "")
    try:
        return float(text) * 1e9 if text else DEFAULT_LIMIT
    except ValueError:
        raise InputError(f"'{text}' is not a number of gigabytes", "BENCH_IMAGES_GB") from None


def _folder() -> Path:
    return locations.cache() / "images"


def _entries() -> list[Path]:
    return [meta.parent for meta in _folder().glob(f"*/{_META}")]


def _size(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir())


def _last_used(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return entry.with_suffix(".use").stat().st_mtime
    return 0.0


def _make_room(size: int) -> None:
    """Remove the least recently used entries until `size` more bytes fit."""
    limit, used = limit_bytes(), sizes()
    total = sum(used.values()) + size
    for key, freed in used.items():
        if total <= limit:
            return
        total -= freed * _remove_unused(_folder() / key)
    if total > limit:
        log.warning(
            "decoded images take %.1f GB, which are all in use: the limit is %.1f GB (BENCH_IMAGES_GB)",
            total / 1e9,
            limit / 1e9,
        )


def _remove_unused(entry: Path) -> bool:
    """Remove an entry unless a process writes or uses it, or it is another user's; say whether it went."""
    with (
        contextlib.suppress(OSError),
        locks.locked(entry.with_suffix(".lock"), wait=False),
        locks.locked(entry.with_suffix(".use"), wait=False),
    ):
        gone = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
        entry.rename(gone)  # so that nobody finds half of it
        shutil.rmtree(gone, ignore_errors=True)
        return True
    return False


def _hold(entry: Path) -> None:
    """Note that an entry is used until this process ends; where nobody can write, nobody removes."""
    with contextlib.suppress(OSError):
        if entry not in _in_use and entry.is_dir():
            handle = locks.open_lock(entry.with_suffix(".use"))
            fcntl.flock(handle, fcntl.LOCK_SH)
            _in_use[entry] = handle
        if entry in _in_use:
            os.utime(_in_use[entry])


def _release(entry: Path) -> None:
    if (handle := _in_use.pop(entry, None)) is not None:
        os.close(handle)


def _open(entry: Path, source: Source) -> Dataset | None:
    """Return the entry, in use from now on, or None if it is absent or not sound."""
    _hold(entry)
    try:
        meta = _read_meta(entry)
        images, *masks = _map_pixels(entry, meta)
        return _dataset(source, images, masks[0] if masks else None, meta)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the stored images in %s are damaged (%s) and are decoded again", entry, error)
    _release(entry)
    return None


def _read_meta(entry: Path) -> dict[str, Any]:
    stored = json.loads((entry / _META).read_text(encoding="utf-8"))
    if digest(stored["meta"]) != stored["checksum"]:
        raise ValueError(f"{_META} does not match its checksum")
    return dict(stored["meta"])


def _map_pixels(entry: Path, meta: dict[str, Any]) -> Iterator[np.ndarray]:
    """Yield images, and masks where there are some; raise ValueError where a file is not what was written."""
    shapes = {_PIXELS: tuple(meta["shape"])}
    if meta.get("masks"):
        shapes[_MASKS] = tuple(meta["shape"][:3])
    for name, shape in shapes.items():
        status = (entry / name).stat()
        if status.st_size != int(np.prod(shape)):
            raise ValueError(f"{name} has the wrong length")
        file = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
        if file not in _sound and _crc32(entry / name) != meta["crc32"][name]:
            raise ValueError(f"{name} does not match its checksum")
        _sound.add(file)
        yield np.memmap(entry / name, dtype=np.uint8, mode="r", shape=shape)


def _crc32(path: Path) -> int:
    total, chunk = 0, bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            total = zlib.crc32(memoryview(chunk)[:count], total)
    return total


def _dataset(source: Source, images: np.ndarray, masks: np.ndarray | None, meta: dict[str, Any]) -> Dataset:
    dataset = Dataset(
        name=source.name,
        classes=tuple(meta["classes"]),
        images=images,
        labels=np.array(meta["labels"], dtype=np.int64),
        parts=np.array(meta["parts"], dtype=np.int8),
        names=tuple(meta["names"]),
        digest=meta["digest"],
        rejected=(*source.left_out, *(Rejected(*pair) for pair in meta["rejected"])),
        licence=meta["licence"],
        origin=meta["origin"],
        masks=masks,
        framing=_framing(meta["framing"]),
    )
    return dataset.grouped(meta["groups"], meta["group_kind"]) if meta["groups"] else dataset


def _framing(stored: dict[str, Any]) -> Framing:
    return Framing(stored["fit"], tuple(stored["levels"]), stored["lost"])


def _remove_remains(folder: Path, key: str) -> None:
    """Remove what a killed process left, and a damaged entry; only the holder of the lock may."""
    for path in [folder / key, *folder.glob(f".{key}.*")]:
        shutil.rmtree(path, ignore_errors=True)


def _read(source: Source) -> Raw:
    """List the images of a source, or say that it, and not the store, can't be read."""
    try:
        return source.read()
    except OSError as error:
        where = str(error.filename or source.name)
        raise InputError(f"{source.name} can't be read ({error.strerror or error})", where) from error


def _write(entry: Path, raw: Raw, side: int, fit: Fit | None) -> None:
    log.info("decoding %d images of %s", len(raw.names), raw.origin)
    temporary = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
    temporary.mkdir()  # and not `mkdtemp`, which lets no other user read it whatever the umask says
    try:
        meta = convert(raw, side, temporary / _PIXELS, temporary / _MASKS, fit)
        text = canonical_json({"meta": meta, "checksum": digest(meta)})
        (temporary / _META).write_text(text, encoding="utf-8")
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
