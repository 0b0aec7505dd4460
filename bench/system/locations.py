"""Where state and caches live, and how a file is written so that no reader ever sees half of it."""

import os
from collections.abc import Callable
from pathlib import Path

from bench.core.errors import InputError


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
