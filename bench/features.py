"""The store of frozen features: content-addressed, checked, bounded, shared by all processes of a machine.

What a frozen prefix puts out never changes, so it is computed once. An entry is `<key>.f32`, the numbers, and
`<key>.json`, their shape and checksum, written in this order under temporary names and renamed: an entry
without its second file does not exist. The least recently used entries go first when the store is full.
"""

import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import InputError
from bench.paths import cache, locked, replacing, write_text
from bench.spec import digest

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 20e9  # bytes
_CHUNK = 1 << 24  # bytes


class FeatureStore:
    """Arrays of float32 on disk, memory-mapped, by the digest of what they were computed from.

    Args:
        folder: by default `features/` in the cache folder.
        limit: bytes that all entries together may take; by default `BENCH_FEATURES_GB`, else 20 GB.
    """

    def __init__(self, folder: Path | None = None, limit: float | None = None) -> None:
        self.folder = folder or cache() / "features"
        self.limit = limit if limit is not None else _limit_from_environment()
        self._verified: set[str] = set()

    def get(
        self, identity: Mapping[str, Any], shape: Sequence[int], fill: Callable[[np.ndarray], None]
    ) -> np.ndarray | None:
        """Return the array of an identity, read-only; compute it if it is absent or damaged.

        Args:
            identity: JSON types; all that decides the numbers.
            shape: of the array.
            fill: writes all numbers into the array that it is given.

        Returns:
            The array, or None if the store can't hold it (too large, or the disk is full).
        """
        size = 4 * math.prod(shape)
        if size > self.limit:
            log.warning(
                "frozen features of %.1f GB are not kept: the limit is %.1f GB", size / 1e9, self.limit / 1e9
            )
            return None
        key = digest(identity)
        if (array := self._open(key, shape)) is not None:
            return array
        try:
            with locked(self.folder / f"{key}.lock"):
                if (array := self._open(key, shape)) is None:
                    self._make_room(size)
                    self._write(key, shape, fill)
                    array = self._open(key, shape)
        except OSError as error:
            log.warning("frozen features are not kept (%s: %s)", error.strerror, self.folder)
            return None
        return array

    def _open(self, key: str, shape: Sequence[int]) -> np.ndarray | None:
        data, meta = self._files(key)
        try:
            stored = json.loads(meta.read_text(encoding="utf-8"))
            if stored["shape"] != list(shape) or data.stat().st_size != 4 * math.prod(shape):
                raise ValueError("wrong length")
            array = np.memmap(data, dtype=np.float32, mode="r", shape=tuple(shape))
            if key not in self._verified and _checksum(array) != stored["crc32"]:
                raise ValueError("wrong checksum")
            now = time.time_ns()  # finer than the clock that the file system takes
            os.utime(meta, ns=(now, now))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the frozen features in %s are damaged (%s) and are computed again", data, error)
            return None
        self._verified.add(key)
        return array

    def _write(self, key: str, shape: Sequence[int], fill: Callable[[np.ndarray], None]) -> None:
        data, meta = self._files(key)
        for remains in [meta, *self.folder.glob(f".{key}.*")]:  # of a process that was killed
            remains.unlink(missing_ok=True)
        with replacing(data) as temporary:
            with temporary.open("r+b") as file:
                # so that a full disk is an error here and not a SIGBUS when the map is written to
                os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
            array = np.memmap(temporary, dtype=np.float32, mode="r+", shape=tuple(shape))
            fill(array)
            array.flush()
            checksum = _checksum(array)
        write_text(meta, json.dumps({"shape": list(shape), "crc32": checksum}))

    def _files(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.f32", self.folder / f"{key}.json"

    def _make_room(self, size: int) -> None:
        """Remove the least recently used entries until `size` more bytes fit; open maps stay valid."""
        entries = sorted(self.folder.glob("*.json"), key=lambda meta: meta.stat().st_mtime)
        used = sum(data.stat().st_size for data in self.folder.glob("*.f32"))
        for meta in entries:
            if used + size <= self.limit:
                return
            data = meta.with_suffix(".f32")
            used -= data.stat().st_size if data.exists() else 0
            for path in (meta, data):
                path.unlink(missing_ok=True)


def _checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes, read in pieces."""
    view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    value = 0
    for start in range(0, len(view), _CHUNK):
        value = zlib.crc32(view[start : start + _CHUNK], value)
    return value


def _limit_from_environment() -> float:
    text = os.environ.get("BENCH_FEATURES_GB", "")
    try:
        return float(text) * 1e9 if text else DEFAULT_LIMIT
    except ValueError:
        raise InputError(f"'{text}' is not a number of gigabytes", "BENCH_FEATURES_GB") from None
