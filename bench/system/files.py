"""Files are written so that no reader ever sees half of one."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on failure.

    Once it is done the file survives a power cut, whole; that costs two waits for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.touch(exist_ok=False)  # and not `mkstemp`, which knows better than the user's umask
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; put it there on success, in place of one, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    temporary, old = (path.with_name(f".{path.name}.{name}.{kind}") for kind in ("tmp", "old"))
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that can't, or needn't
            raise
    finally:
        os.close(handle)


def sync_up_to(path: Path, top: Path) -> None:
    """Wait until a file is on the disk, and all folders that lead to it from `top`, which is one of them."""
    sync(path)
    for folder in path.parents:
        sync(folder)
        if folder == top:
            return


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def drop_half_line(path: Path) -> None:
    """Cut off what a process that died, or a full disk, left of a last line; its lock must be held."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def check_writable(folder: Path, where: str) -> None:
    """Raise InputError now, and not after hours, if nothing can be written to a folder, which need not exist.

    Tried and not asked for: the superuser may write everywhere, but not to `/proc`.
    """
    standing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".bench-", dir=standing)).rmdir()
    except OSError as error:
        what = f"{standing} is no folder that can be written to ({(error.strerror or str(error)).lower()})"
        raise InputError(what, where, "name another one") from error
