"""Where state and caches live, and how a file is written so that no reader ever sees half of it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from bench.core.errors import InputError

MARK = ".transfer-bench"  # the file that says that a folder is written by this project
_MARK_TEXT = "This folder is written by bench. It is no data: a data set around it leaves it out.\n"


def mark(folder: Path) -> None:
    """Mark a folder as the project's own, so that it is never taken for data; silent where that can't be."""
    with contextlib.suppress(OSError):
        if not (folder / MARK).exists():
            (folder / MARK).write_text(_MARK_TEXT, encoding="utf-8")


def is_marked(folder: Path | str) -> bool:
    """Say whether a folder is the project's own."""
    return os.path.exists(os.path.join(folder, MARK))  # noqa: PTH110, PTH118 - asked of every folder of a data set


def home() -> Path:
    """State that must last: `BENCH_HOME`, by default `.bench/` in the current folder."""
    return _folder("BENCH_HOME", lambda: Path(".bench"))


def checkpoints() -> Path:
    """Runs in flight: `BENCH_CHECKPOINTS`, which machines may share, by default a folder of `home`."""
    default = home() / "checkpoints"
    return _folder("BENCH_CHECKPOINTS", lambda: default) if os.environ.get("BENCH_CHECKPOINTS") else default


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
    mark(path)
    return path


def expanded(text: str) -> Path:
    """Return a path with the home folder for `~`; where there is no such home it is left as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's own raises
