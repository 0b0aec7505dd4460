"""Locks between processes of one machine; the system releases them if their holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import InputError
from bench.system import locations


def lock_file(kind: str, name: str) -> Path:
    """Return the file in `BENCH_HOME` that stands for a thing; two kinds never share one."""
    return locations.home() / "locks" / kind / f"{name}.lock"


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder of reports, by whatever name and with whatever home."""
    folder = folder.resolve()
    with claimed(folder.with_name(f".{folder.name}.lock"), wait=True):
        yield


@contextmanager
def locked(path: Path, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes; the system releases it if this one dies.

    Args:
        path: the file that stands for it; it stays.
        wait: for others to release it.
        shared: with all others that hold it shared, not alone.

    Raises:
        BlockingIOError: if another process holds it and `wait` is false.
        InputError: if the file system knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_lock(path)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        _flock(handle, kind if wait else kind | fcntl.LOCK_NB, path)
        yield
    finally:
        os.close(handle)


def open_lock(path: Path) -> int:
    """Return a handle to the file that stands for a lock, made if need be.

    What another user made is opened to be read, which is enough to lock it: a cache may belong to several.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Yield whether a piece of work is this process's; the system gives it free if this one dies.

    Args:
        path: the file that stands for it; it goes when the work is done.
        wait: for others to give it free.

    Raises:
        InputError: if the file system knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with os.fdopen(open_lock(path)) as file:
            try:
                _flock(file.fileno(), fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            except BlockingIOError:
                yield False
                return
            if not _is_at(path, file.fileno()):
                continue  # its last holder has just removed it: what is locked here, others don't see
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _flock(handle: int, kind: int, path: Path) -> None:
    try:
        fcntl.flock(handle, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        what = f"files can't be locked there ({(error.strerror or str(error)).lower()})"
        remedy = "set BENCH_HOME, BENCH_CACHE and --output to folders of a file system that knows flock"
        raise InputError(what, str(path.parent), remedy) from error
