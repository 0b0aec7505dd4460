"""A raw data set becomes one file of pixels: decoded in threads, written in order, never all in memory."""

import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.core.hashing import canonical_json
from bench.data.dataset import NO_LABEL, UnreadableError
from bench.data.decoding import open_image, seen_size, to_square, to_square_with_mask
from bench.data.framing import Fit, Framing
from bench.data.sources.base import Raw
from bench.data.survey import framing_of
from bench.system.hardware import usable_cpus

_AHEAD = 64  # images decoded ahead of the one that is being written
_FEWEST_CLASSES = 2


class _OtherSizeError(Exception):
    """An image has not the size that all before it had."""


Decoded = tuple[np.ndarray, int | np.ndarray]  # an image, and its label or its mask


def convert(raw: Raw, side: int, file: Path, mask_file: Path, fit: Fit | None = None) -> dict[str, Any]:
    """Decode all images into a file of (N, S, S, 3) uint8 and return the rest of the data set, in JSON types.

    Pictures that are no squares become some as `survey.framing_of` says. S is `side`, or the images' own
    size if all are squares of one size not above `side`. Images with masks are always brought to `side`,
    whole, and the masks written to a file of their own, (N, S, S) uint8. Images that can't be read are left
    out and named under `rejected`.

    Raises:
        InputError: if fewer than two classes, or no image of some class, are left.
        OSError: if a file can't be written.
    """
    with _strict_about_bombs():
        framing = framing_of(raw, "pad" if raw.masks else fit)
        if raw.masks:
            return _convert_with_masks(raw, side, file, mask_file, framing)
        native = _native_side(raw, side)
        try:
            return _convert(raw, native or side, file, framing, exact=native is not None)
        except _OtherSizeError:
            return _convert(raw, side, file, framing, exact=False)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is in no data set, as one would be stored.

    Args:
        pixels: uint8, shape (S, S, 3).
        size: its own width and height as it is seen.
    """

    pixels: np.ndarray
    size: tuple[int, int]


def convert_pictures(
    files: Sequence[Path], to_stored: Callable[[Image.Image], np.ndarray]
) -> list[Picture | str]:
    """Return each file as it would be stored, or the reason why it can't be; decoded in threads."""
    sizes: dict[int, tuple[int, int]] = {}

    def decode(index: int) -> Decoded | str:
        def read() -> Decoded:
            with open_image(files[index]) as image:
                sizes[index] = seen_size(image)
                return to_stored(image), 0

        return _or_reason(read)

    with _strict_about_bombs():
        decoded = enumerate(_in_order(decode, len(files)))
        return [one if isinstance(one, str) else Picture(one[0], sizes[index]) for index, one in decoded]


class _SummedFile:
    """A file of arrays one after the other, and the CRC-32 of all that it holds."""

    def __init__(self, path: Path) -> None:
        self.name, self.crc32 = path.name, 0
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, values: np.ndarray) -> None:
        self._file.write(values.data)
        self.crc32 = zlib.crc32(values.data, self.crc32)


def _convert_with_masks(raw: Raw, side: int, file: Path, mask_file: Path, framing: Framing) -> dict[str, Any]:
    kept: list[int] = []
    rejected = [[r.name, r.reason] for r in raw.rejected]
    hasher, highest = sha256(), -1
    with _SummedFile(file) as images, _SummedFile(mask_file) as masks:
        for index, result in enumerate(
            _in_order(lambda i: _read_masked(raw, i, side, framing), len(raw.names))
        ):
            if isinstance(result, str):
                rejected.append([raw.names[index], result])
                continue
            pixels, mask = result
            assert isinstance(mask, np.ndarray)
            for out, values in ((images, pixels), (masks, mask)):
                out.write(values)
                hasher.update(values.data)
            highest = max(highest, int(mask.max(where=mask != NO_LABEL, initial=0)))
            kept.append(index)
    classes = raw.classes or tuple(str(value) for value in range(highest + 1))
    if not kept or len(classes) < _FEWEST_CLASSES:
        _check(raw, classes, kept, rejected)  # names what is wrong
    meta = _facts(raw, kept, classes, [0] * len(kept), rejected) | {"shape": [len(kept), side, side, 3]}
    meta["framing"] = asdict(framing)
    hasher.update(_labelling(meta))
    sums = {written.name: written.crc32 for written in (images, masks)}
    return meta | {"digest": hasher.hexdigest(), "crc32": sums, "masks": True}


def _read_masked(raw: Raw, index: int, side: int, framing: Framing) -> Decoded | str:
    """Return pixels and mask, or the reason why there are none."""

    def read() -> Decoded:
        image, mask = raw.read(index)
        assert not isinstance(mask, int), "this source has masks"
        with image:
            pixels, labels = to_square_with_mask(image, mask, side, framing)
        found = int(labels.max(where=labels != NO_LABEL, initial=0))
        if raw.classes and found >= len(raw.classes):
            raise UnreadableError(f"its mask holds {found}; there are {len(raw.classes)} classes, from 0")
        return pixels, labels

    return _or_reason(read)


def _labelling(meta: dict[str, Any]) -> bytes:
    return canonical_json({key: meta[key] for key in ("shape", "labels", "classes", "parts")}).encode()


def _convert(raw: Raw, side: int, file: Path, framing: Framing, *, exact: bool) -> dict[str, Any]:
    kept: list[int] = []
    labels: list[int] = []
    rejected = [[r.name, r.reason] for r in raw.rejected]
    hasher = sha256()
    with _SummedFile(file) as out:
        for index, result in enumerate(
            _in_order(lambda i: _read_one(raw, i, side, framing, exact=exact), len(raw.names))
        ):
            if isinstance(result, str):
                rejected.append([raw.names[index], result])
                continue
            pixels, label = result
            assert isinstance(label, int)
            out.write(pixels)
            hasher.update(pixels.data)
            kept.append(index)
            labels.append(label)
    meta = _describe(raw, kept, labels, rejected) | {"shape": [len(kept), side, side, 3]}
    meta["framing"] = asdict(framing)
    hasher.update(_labelling(meta))
    return meta | {"digest": hasher.hexdigest(), "crc32": {out.name: out.crc32}}


def _describe(raw: Raw, kept: list[int], labels: list[int], rejected: list[list[str]]) -> dict[str, Any]:
    found = sorted(set(labels))
    classes = raw.classes or tuple(str(value) for value in found)
    if not raw.classes:
        labels = [found.index(label) for label in labels]
    _check(raw, classes, labels, rejected)
    return _facts(raw, kept, classes, labels, rejected)


def _facts(
    raw: Raw, kept: list[int], classes: tuple[str, ...], labels: list[int], rejected: list[list[str]]
) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "labels": labels,
        "parts": [int(raw.parts[i]) for i in kept],
        "names": [raw.names[i] for i in kept],
        "rejected": rejected,
        "licence": raw.licence,
        "origin": raw.origin,
        "groups": [raw.groups[i] for i in kept] if raw.groups else [],
        "group_kind": raw.group_kind,
    }


def _check(raw: Raw, classes: tuple[str, ...], labels: list[int], rejected: list[list[str]]) -> None:
    example = f" ({len(rejected)} left out, such as {': '.join(rejected[0])})" if rejected else ""
    if not labels:
        raise InputError(f"there is no usable image{example}", raw.origin, "give images that can be opened")
    if len(classes) < _FEWEST_CLASSES:
        raise InputError(f"there is only one class, '{classes[0]}'", raw.origin, "give at least two classes")
    missing = sorted(set(range(len(classes))) - set(labels))
    if missing:
        raise InputError(
            f"the class '{classes[missing[0]]}' has no usable image{example}",
            raw.origin,
            "mend or add images of it, or remove the class",
        )


def _native_side(raw: Raw, side: int) -> int | None:
    """Return the size of the first readable image if it is a square that need not be made smaller."""
    for index in range(len(raw.names)):
        try:
            with raw.read(index)[0] as image:
                width, height = image.size
        except Exception:  # noqa: BLE001, S112 - named when it is decoded
            continue
        return width if width == height <= side else None
    return None


def _read_one(raw: Raw, index: int, side: int, framing: Framing, *, exact: bool) -> Decoded | str:
    """Return pixels and label, or the reason why there are none."""

    def read() -> Decoded:
        image, label = raw.read(index)
        assert isinstance(label, int), "this source has labels"
        with image:
            return _to_stored(image, side, framing, exact=exact), label

    return _or_reason(read)


def _or_reason(read: Callable[[], Decoded]) -> Decoded | str:
    try:
        return read()
    except _OtherSizeError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except UnreadableError as error:
        return str(error)
    except MemoryError:  # of this machine at this moment, not of the file: nothing may be left out for it
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever a broken file makes them raise
        return f"can't be decoded ({' '.join(str(error).split()) or type(error).__name__})"


def _to_stored(image: Image.Image, side: int, framing: Framing, *, exact: bool) -> np.ndarray:
    if exact and image.size != (side, side):
        raise _OtherSizeError
    return to_square(image, side, framing)


def _in_order(work: Callable[[int], Decoded | str], count: int) -> Iterator[Decoded | str]:
    """Yield work(0) ... work(count - 1), computed in threads (Pillow decodes without holding the GIL)."""
    waiting: deque[Future[Decoded | str]] = deque()
    with ThreadPoolExecutor(usable_cpus()) as pool:
        try:
            for index in range(count):
                waiting.append(pool.submit(work, index))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _strict_about_bombs() -> Iterator[None]:
    """Turn Pillow's warning about huge images into an error, in all threads; silence its other ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
