"""Where state and caches live, and how a file is written so that no reader ever sees half of it."""

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import InputError


def home() -> Path:
    """State that must last: `BENCH_HOME`, by default `.bench/` in the current folder."""
    return _folder("BENCH_HOME", lambda: Path(".bench"))


def cache() -> Path:
    """What can be computed again: `BENCH_CACHE`, by default the user's cache folder."""

    def default() -> Path:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transfer-bench"

    return _folder("BENCH_CACHE", default)


def _folder(variable: str, default: Callable[[], Path]) -> Path:
    try:
        path = Path(os.environ.get(variable) or default()).expanduser().resolve()
    except RuntimeError as error:  # a user without a home, as a container may have
        raise InputError(
            "there is no home folder to put it in", variable, "name a writable folder"
        ) from error
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't create {path} ({error.strerror})", variable, "name a writable folder"
        ) from error
    return path


def expanded(text: str) -> Path:
    """Return a path with the home folder for `~`; where there is no such home it is left as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's own raises


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.touch(exist_ok=False)  # and not `mkstemp`, which knows better than the user's umask
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes; the system releases it if this one dies.

    Args:
        path: the file that stands for it; it stays.
        wait: for others to release it.
        shared: with all others that hold it shared, not alone.

    Raises:
        BlockingIOError: if another process holds it and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Yield whether a piece of work is this process's; the system gives it free if this one dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def drop_half_line(path: Path) -> None:
    """Cut off what a process that died, or a full disk, left of a last line; its lock must be held."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
