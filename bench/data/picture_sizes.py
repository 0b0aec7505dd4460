"""How large the pictures of a folder are: read from the heads of some of them, without decoding any."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.core.errors import InputError
from bench.data.dataset import UnreadableError
from bench.data.decoding import SUFFIXES, open_image
from bench.data.sources.table import read_table
from bench.system.locations import is_marked

SAMPLE = 200  # pictures, evenly spaced: the median of so many is near that of all


def typical_size(data: Path) -> tuple[int, int]:
    """Return the median width and height, in pixels, of the pictures below a folder or in a table.

    Raises:
        InputError: if there is none that can be opened.
    """
    files = sorted(_listed(data))
    chosen = {int(place) for place in np.linspace(0, len(files) - 1, min(SAMPLE, len(files)))}
    sizes = [size for place in sorted(chosen) if (size := _size(files[place]))]
    if not sizes:
        raise InputError("there is no picture that can be opened", str(data), "name one with images")
    width, height = np.median(sizes, axis=0).astype(int)
    return int(width), int(height)


def count_pictures(data: Path) -> int:
    """Return how many pictures there are below a folder or in a table, whether they can be opened or not."""
    return sum(1 for _ in _listed(data))


def _listed(data: Path) -> Iterator[Path]:
    if data.is_dir():
        return _pictures(data)
    return (row.path for row in read_table(data, "", ()))


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures below a folder, but for hidden ones and those of reports."""
    for above, inside, names in os.walk(folder):
        inside[:] = [n for n in inside if not n.startswith(".") and not is_marked(Path(above, n))]
        yield from (Path(above, name) for name in names if Path(name).suffix.lower() in SUFFIXES)


def _size(file: Path) -> tuple[int, int] | None:
    try:
        with open_image(file) as image:
            return image.size
    except (UnreadableError, OSError, ValueError, SyntaxError):
        return None
