"""Photographs that come inside wheels, and windows of them as a data set of textures."""

import itertools
from functools import partial

import numpy as np
from PIL import Image

from bench.data.dataset import UNASSIGNED
from bench.data.decoding import open_image
from bench.data.sources.base import SOURCES, Raw, Source
from bench.data.sources.packaged import packaged_file, versions

BLOCK, WINDOW, STRIDE = 128, 64, 32  # pixels: sides of a block and of the windows in it, and their distance
FLAT = 4.0  # grey levels: standard deviation below which a window shows nothing
GREY, CONTRAST = 128.0, 48.0  # mean and standard deviation that all windows are brought to
FEWEST_BLOCKS, MOST_BLOCKS = 10, 16  # of a photograph, so that all are about as many

# The licence of each photograph as scikit-image (docstrings of skimage.data) and scikit-learn
# (sklearn/datasets/images/README.txt) state it.
PHOTOGRAPHS = {
    "astronaut": ("skimage/data/astronaut.png", "public domain, NASA"),
    "brick": ("skimage/data/brick.png", "CC0, CC0Textures"),
    "camera": ("skimage/data/camera.png", "CC0, Lav Varshney"),
    "cell": ("skimage/data/cell.png", "CC0, Müller et al. 2018"),
    "chelsea": ("skimage/data/chelsea.png", "CC0, Stefan van der Walt"),
    "china": ("sklearn/datasets/images/china.jpg", "CC BY 2.0, danielbuechele"),
    "clock": ("skimage/data/clock_motion.png", "public domain, Stefan van der Walt"),
    "coffee": ("skimage/data/coffee.png", "CC0, Rachel Michetti"),
    "coins": ("skimage/data/coins.png", "no known copyright restrictions, Brooklyn Museum"),
    "flower": ("sklearn/datasets/images/flower.jpg", "CC BY 2.0, vultilion"),
    "grass": ("skimage/data/grass.png", "CC0, linolafett"),
    "gravel": ("skimage/data/gravel.png", "CC0, CC0Textures"),
    "hubble": ("skimage/data/hubble_deep_field.jpg", "public domain, NASA"),
    "ihc": ("skimage/data/ihc.png", "no known copyright restrictions, CMMI"),
    "moon": ("skimage/data/moon.png", "not stated; distributed with scikit-image, BSD-3-Clause"),
    "motorcycle": ("skimage/data/motorcycle_left.png", "not stated; Middlebury stereo benchmark 2014"),
    "page": ("skimage/data/page.png", "not stated; distributed with scikit-image, BSD-3-Clause"),
    "retina": ("skimage/data/retina.jpg", "CC0, Mikael Häggström"),
    "rocket": ("skimage/data/rocket.jpg", "public domain, SpaceX"),
}
Corner = tuple[int, int]  # left and top of a square, in pixels


def _read_photo_textures() -> Raw:
    photographs = {name: read_photograph(name).convert("L") for name in PHOTOGRAPHS}
    found = {name: _blocks(np.asarray(photograph)) for name, photograph in photographs.items()}
    taken = {name: _spread(blocks) for name, blocks in found.items() if len(blocks) >= FEWEST_BLOCKS}
    classes = tuple(taken)
    windows = [
        (name, f"{name}/block x{block[0]:04d} y{block[1]:04d}", place)
        for name, blocks in taken.items()
        for block, places in blocks.items()
        for place in places
    ]

    def read(index: int) -> tuple[Image.Image, int]:
        name, _, (left, top) = windows[index]
        window = photographs[name].crop((left, top, left + WINDOW, top + WINDOW))
        return Image.fromarray(_equalised(np.asarray(window))), classes.index(name)

    names = [f"{name}/x{left:04d}_y{top:04d}" for name, _, (left, top) in windows]
    groups = [block for _, block, _ in windows]
    licence = "; ".join(f"{name}: {PHOTOGRAPHS[name][1]}" for name in classes)
    parts = [UNASSIGNED] * len(windows)
    return Raw(
        classes, names, parts, read, licence, versions("skimage", "sklearn"),
        groups=groups, group_kind="photograph block",
    )  # fmt: skip


def read_photograph(name: str) -> Image.Image:
    """Return one of the photographs that come inside wheels."""
    return open_image(packaged_file(PHOTOGRAPHS[name][0]))


def _blocks(grey: np.ndarray) -> dict[Corner, list[Corner]]:
    """Return a photograph's blocks, each with its windows that are not flat; a block without any is none."""
    steps = range(0, BLOCK - WINDOW + 1, STRIDE)
    blocks = {}
    for top, left in itertools.product(*(range(0, side - BLOCK + 1, BLOCK) for side in grey.shape)):
        places = [(left + dx, top + dy) for dy, dx in itertools.product(steps, steps)]
        if places := [(x, y) for x, y in places if grey[y : y + WINDOW, x : x + WINDOW].std() >= FLAT]:
            blocks[left, top] = places
    return blocks


def _spread(
    blocks: dict[Corner, list[Corner]],
) -> dict[Corner, list[Corner]]:
    """Return at most MOST_BLOCKS of the blocks, evenly spaced among them."""
    corners = list(blocks)
    chosen = np.linspace(0, len(corners) - 1, min(MOST_BLOCKS, len(corners))).round().astype(int)
    return {corners[number]: blocks[corners[number]] for number in chosen}


def _equalised(window: np.ndarray) -> np.ndarray:
    """Return a grey window with the mean and contrast of all others, as far as 0 to 255 allow: uint8."""
    deviation = (window - window.mean()) / window.std()
    return np.asarray((GREY + CONTRAST * deviation).round().clip(0, 255), dtype=np.uint8)


SOURCES.add(
    Source(
        "photo_textures",
        "1,831 grey windows of 64x64 pixels from 15 photographs, all of one mean and contrast; the class is "
        "the photograph, so what is to be learnt is its texture",
        "public domain, CC0 and CC BY 2.0, by photograph",
        partial(versions, "skimage", "sklearn"),
        _read_photo_textures,
    )
)
