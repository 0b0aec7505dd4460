"""A look at the pictures of a data set before they are decoded: their shapes and their depth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from bench.data.dataset import TEST, VAL
from bench.data.framing import BLACK, WHITE, Fit, Framing
from bench.data.sources.base import Raw
from bench.system.hardware import usable_cpus

SAMPLE = 1000  # pictures, evenly spaced, of which shape and depth are looked at
MOST_LOST = 0.34  # share of the area: photographs of 3 : 2 are cropped, what is longer is shown whole
T = TypeVar("T")


def framing_of(raw: Raw, fit: Fit | None) -> Framing:
    """Return how the pictures of a data set are framed.

    16-bit pixels are scaled by the range of those pictures that the data set doesn't set apart for val or
    test.

    Args:
        raw: the data set.
        fit: as the study has it; None: crop, unless that loses too much of them.
    """
    chosen = np.linspace(0, len(raw.names) - 1, min(SAMPLE, len(raw.names))).round().astype(int)
    looks = [look for look in _each(raw, chosen.tolist(), _look) if look]
    lost = float(np.mean([look.lost for look in looks])) if looks else 0.0
    levels = (BLACK, WHITE)
    if any(look.deep for look in looks):
        levels = _range_of(raw) or levels
    return Framing(fit or ("crop" if lost <= MOST_LOST else "pad"), levels, lost)


@dataclass(frozen=True)
class _Look:
    lost: float
    deep: bool


def _look(image: Image.Image) -> _Look:
    return _Look(1 - min(image.size) / max(image.size), image.mode.startswith("I"))


def _range_of(raw: Raw) -> tuple[int, int] | None:
    """Return the lowest and the highest value of the 16-bit pictures that may be trained on."""
    trained = [index for index, part in enumerate(raw.parts) if part not in {VAL, TEST}]
    ranges = [found for found in _each(raw, trained, _extremes) if found]
    if not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return (low, high) if BLACK <= low < high <= WHITE else None


def _extremes(image: Image.Image) -> tuple[int, int] | None:
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    return int(values.min()), int(values.max())


def _each(raw: Raw, indices: list[int], look: Callable[[Image.Image], T | None]) -> Iterator[T | None]:
    """Yield what a look at each picture gives; None for one that can't be read, which is named later."""

    def at(index: int) -> T | None:
        try:
            with raw.read(index)[0] as image:
                return look(image)
        except Exception:  # noqa: BLE001 - Pillow's readers raise whatever a broken file makes them raise
            return None

    with ThreadPoolExecutor(usable_cpus()) as pool:
        yield from pool.map(at, indices)
