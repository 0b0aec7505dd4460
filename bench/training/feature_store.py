"""The store of frozen features: content-addressed, checked, bounded, shared by all processes of a machine.

What a frozen prefix makes of an image never changes, so it is computed once: for all trials, seeds,
strategies and studies, whichever images each of them takes. An entry is `<key>.f32`, a row of numbers for
each image of the data set (a hole in the file where it was not wanted yet), and `<key>.npy`, which says of
each row whether it is there, its checksum and what it took. Rows are written first, and what says so then,
under a temporary name that is renamed: a row that it does not name does not exist. That is done every so
often while rows are computed, so that whoever is interrupted loses seconds. The least recently used entries
go first when the store is full.
"""

import contextlib
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.system.files import replacing
from bench.system.locations import cache
from bench.system.locks import locked
from bench.system.notices import warn_once
from bench.system.signals import pause_seconds

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 20e9  # bytes
ROW = np.dtype([("there", "?"), ("crc32", "<u4"), ("seconds", "<f4")])
Note = Callable[[int], None]  # how many of the rows, counted from the first, are written
Fill = Callable[[np.ndarray, np.ndarray, Note], None]


@dataclass(frozen=True, eq=False)
class Entry:
    """Stored features of images.

    Args:
        array: float32, read-only, shape (images of the data set, ...); only the rows asked for are sure.
        seconds: what computing each row took, whoever did, shape (images of the data set,).
    """

    array: np.ndarray
    seconds: np.ndarray


class FeatureStore:
    """Arrays of float32 on disk, memory-mapped, by the digest of what they were computed from.

    Args:
        folder: by default `features/` in the cache folder.
        limit: bytes that all entries together may take; by default `BENCH_FEATURES_GB`, else 20 GB.
    """

    def __init__(self, folder: Path | None = None, limit: float | None = None) -> None:
        self.folder = folder or cache() / "features"
        self.limit = limit if limit is not None else _limit_from_environment()
        self._verified: dict[tuple[str, int], np.ndarray] = {}  # by key and inode: rows whose sum was right

    def get(
        self, identity: Mapping[str, Any], shape: Sequence[int], rows: np.ndarray, fill: Fill
    ) -> Entry | None:
        """Return the entry of an identity; compute the rows that are absent or damaged.

        Args:
            identity: JSON types; all that decides the numbers.
            shape: of the whole array, a row for each image of the data set.
            rows: the images whose features are wanted.
            fill: writes the rows that it is given into the array that it is given, and notes how far it is.

        Returns:
            The entry, or None if the store can't hold it (too large, or the disk is full).
        """
        key, width = digest(identity), 4 * math.prod(shape[1:])
        if (size := width * len(rows)) > self.limit:
            sizes = f"of {size / 1e9:.1f} GB are not kept: the limit is {self.limit / 1e9:.1f} GB"
            warn_once(log, f"frozen features {sizes}")
            return None
        entry, missing = self._open(key, shape, rows)
        if not len(missing):
            return entry
        try:
            with locked(self.folder / f"{key}.lock"):
                _, missing = self._open(key, shape, rows)
                if len(missing):
                    self._make_room(width * len(missing), key)
                    self._write(key, shape, missing, fill)
                entry, missing = self._open(key, shape, rows)
        except OSError as error:
            warn_once(log, f"frozen features are not kept ({error.strerror}: {self.folder})")
            return None
        return None if len(missing) else entry

    def _open(self, key: str, shape: Sequence[int], rows: np.ndarray) -> tuple[Entry | None, np.ndarray]:
        """Return an entry and which of the rows it lacks; a row whose checksum is wrong is lacking."""
        data, meta = self._files(key)
        try:
            table = _read_table(meta, shape[0])
            status = data.stat()
            if status.st_size != 4 * math.prod(shape):
                raise ValueError("wrong length")
        except FileNotFoundError:
            return None, rows
        except (OSError, ValueError) as error:
            log.warning("the frozen features in %s are damaged (%s) and are computed again", data, error)
            return None, rows
        array = np.memmap(data, dtype=np.float32, mode="r", shape=tuple(shape))
        verified = self._verified.setdefault((key, status.st_ino), np.zeros(shape[0], bool))
        there = rows[table["there"][rows]]
        unsure = there[~verified[there]]
        right = np.array([_checksum(array[row]) == table["crc32"][row] for row in unsure], bool)
        if not right.all():
            log.warning("the frozen features in %s are damaged (wrong checksum), computed again", data)
        verified[unsure] = right
        now = time.time_ns()  # finer than the clock that the file system takes
        with contextlib.suppress(OSError):  # removed by another process, or not ours
            os.utime(meta, ns=(now, now))
        return Entry(array, table["seconds"]), rows[~(table["there"][rows] & verified[rows])]

    def _write(self, key: str, shape: Sequence[int], rows: np.ndarray, fill: Fill) -> None:
        """Compute rows and add them to an entry, whose lock is held."""
        data, meta = self._files(key)
        width = 4 * math.prod(shape[1:])
        try:
            table = _read_table(meta, shape[0])
        except (OSError, ValueError):
            data.unlink(missing_ok=True)  # rows that nothing speaks of
            table = np.zeros(shape[0], ROW)
        try:
            with data.open("a+b") as file:
                file.truncate(width * shape[0])
                for start, stop in _runs(rows):
                    # so that a full disk is an error here and not a SIGBUS when the map is written to
                    os.posix_fallocate(file.fileno(), width * start, width * (stop - start))
            filling = _Filling(np.memmap(data, dtype=np.float32, mode="r+", shape=tuple(shape)), table, meta)
            fill(filling.array, rows, lambda count: filling.note(rows[:count]))
            filling.keep(rows)
        except BaseException:
            if not meta.exists():
                data.unlink(missing_ok=True)
            raise
        self._verified.pop((key, data.stat().st_ino), None)

    def _files(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.f32", self.folder / f"{key}.npy"

    def size(self) -> int:
        """Return the bytes that all entries take on the disk."""
        return sum(data.stat().st_blocks * 512 for data in self.folder.glob("*.f32"))

    def clear(self) -> int:
        """Remove all entries but those that are being written; return how many bytes that freed."""
        before = self.size()
        self._make_room(0, key="", limit=0)
        return before - self.size()

    def _make_room(self, size: int, key: str, limit: float | None = None) -> None:
        """Remove the least recently used other entries until `size` more bytes fit; open maps stay valid."""
        sizes = {data: data.stat().st_blocks * 512 for data in self.folder.glob("*.f32")}
        used = sum(sizes.values())
        for data in sorted(sizes, key=_last_used):
            if used + size <= (self.limit if limit is None else limit):
                return
            with contextlib.suppress(BlockingIOError), _not_written(data, key):
                data.with_suffix(".npy").unlink(missing_ok=True)
                data.unlink(missing_ok=True)
                used -= sizes[data]


class _Filling:
    """Rows on their way into an entry: what is done is written down when enough time has passed."""

    def __init__(self, array: np.memmap[Any, Any], table: np.ndarray, meta: Path) -> None:
        self.array, self.table, self.meta = array, table, meta
        self._kept = 0
        self._pause, self._since = pause_seconds(), time.perf_counter()

    def note(self, done: np.ndarray) -> None:
        """Take note of all rows that are done, and keep them if it is time."""
        if time.perf_counter() - self._since >= self._pause:
            self.keep(done)

    def keep(self, done: np.ndarray) -> None:
        """Write down what is done, but for what already is."""
        rows = done[self._kept :]
        if not len(rows):
            return
        self.array.flush()
        self.table["seconds"][rows] = (time.perf_counter() - self._since) / len(rows)
        self.table["crc32"][rows] = [_checksum(self.array[row]) for row in rows]
        self.table["there"][rows] = True
        with replacing(self.meta) as temporary, temporary.open("wb") as file:
            np.save(file, self.table)
        self._kept, self._since = len(done), time.perf_counter()


@contextlib.contextmanager
def _not_written(data: Path, own: str) -> Iterator[None]:
    """Hold an entry's lock; raise BlockingIOError if it is our own or another process writes to it."""
    if data.stem == own:
        raise BlockingIOError
    with locked(data.with_suffix(".lock"), wait=False):
        yield


def _last_used(data: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return data.with_suffix(".npy").stat().st_mtime
    return 0.0


def _read_table(meta: Path, images: int) -> np.ndarray:
    """Return what is known of an entry's rows; raise FileNotFoundError or ValueError if there is nothing."""
    try:
        table = np.load(meta, allow_pickle=False)
    except EOFError as error:
        raise ValueError("an empty file") from error
    if not isinstance(table, np.ndarray) or table.dtype != ROW or table.shape != (images,):
        raise ValueError("not a table of rows")
    return table


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield first and one past last of each run of neighbouring rows."""
    ordered = np.unique(rows)
    for run in np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1):
        yield int(run[0]), int(run[-1]) + 1


def _checksum(row: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(row).view(np.uint8).reshape(-1).data)


def _limit_from_environment() -> float:
    text = os.environ.get("BENCH_FEATURES_GB", "")
    try:
        return float(text) * 1e9 if text else DEFAULT_LIMIT
    except ValueError:
        raise InputError(f"'{text}' is not a number of gigabytes", "BENCH_FEATURES_GB") from None
