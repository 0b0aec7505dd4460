"""Pictures that somebody names: files, folders and patterns."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.core.errors import InputError
from bench.data.decoding import SUFFIXES
from bench.data.sources.mask_folder import IMAGES, MASKS
from bench.system.locations import expanded, is_marked

PATTERN = set("*?[")


def find_pictures(named: Sequence[str]) -> list[Path]:
    """Return the files that are named, each once, in the order of the arguments and within one of names.

    Of a folder those are all pictures below it, by their suffix. Masks beside `images/` are left out, and so
    is what is hidden or written by this project.

    Args:
        named: files, folders, or patterns such as `photos/*.jpg`, in which `**` stands for any folders.

    Raises:
        InputError: if one of them names nothing.
    """
    found = dict.fromkeys(file for text in named for file in _named_by(text))
    return list(found)


def _named_by(text: str) -> Iterator[Path]:
    path = expanded(text)
    if path.is_dir():
        files = list(_below(path))
        if not files:
            raise InputError(
                "there is no picture below it", text, f"pictures are {' '.join(sorted(SUFFIXES))}"
            )
        yield from files
    elif path.exists():
        yield path
    elif PATTERN & set(text):
        matching = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - of any root
        files = [each for each in matching if each.is_file()]
        if not files:
            raise InputError("no file matches the pattern", text, "try `ls` with it")
        yield from files
    else:
        raise InputError("there is no such file or folder", text, "give files, folders or a pattern")


def _below(folder: Path) -> Iterator[Path]:
    try:
        inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(folder)) from error
    names = {entry.name for entry in inside}
    for entry in inside:
        if entry.is_dir():
            if (
                not entry.is_symlink()
                and not is_marked(entry)
                and not (entry.name == MASKS and IMAGES in names)
            ):
                yield from _below(entry)
        elif entry.suffix.lower() in SUFFIXES and entry.is_file():
            yield entry
