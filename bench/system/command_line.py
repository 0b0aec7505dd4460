"""Commands as a person can copy them."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def as_typed(words: Sequence[str]) -> str:
    """Return the words of a command for a shell; the home folder is `~`: reports must not say whose it is."""
    return " ".join(map(with_home, words))


def with_home(word: str) -> str:
    """Return a word for a shell, with `~` where it begins with the home folder."""
    try:
        below = Path(word).relative_to(Path.home()) if Path(word).is_absolute() else None
    except (ValueError, RuntimeError):  # elsewhere, or there is no home
        below = None
    if below is None:
        return shlex.quote(word) if not word.startswith("~/") else f"~/{shlex.quote(word[2:])}"
    return f"~/{shlex.quote(str(below))}" if below.parts else "~"


def with_option(command: str, option: str, value: str) -> str:
    """Return a command for a shell with an option at another value: `bench run a --seeds 9`."""
    kept: list[str] = []
    words = iter(shlex.split(command))
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return as_typed([*kept, option, value])
