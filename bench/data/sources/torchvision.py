"""torchvision's data sets for classification and segmentation, downloaded when a study asks for them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from bench.core.errors import InputError, nearest
from bench.data.sources.base import MASK_SOURCES, SOURCES, Raw, Source, assign_parts
from bench.data.sources.mask_folder import read_mask
from bench.system import locations
from bench.system.locks import locked

Arguments = Mapping[str, Any]

_WHOLE: Mapping[str, Arguments] = {"train": {}}
_TRAIN_FLAG: Mapping[str, Arguments] = {"train": {"train": True}, "test": {"train": False}}


def _splits(*names: str, **more: Any) -> Mapping[str, Arguments]:
    return {name: {"split": name, **more} for name in names}


@dataclass(frozen=True)
class _Set:
    """How a class of torchvision.datasets is called for each part, and a summary."""

    parts: Mapping[str, Arguments]
    summary: str
    more: Arguments = field(default_factory=dict)


_VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)


@dataclass(frozen=True)
class _MaskSet(_Set):
    """How a class gives its masks: their classes, and the values 0 to 255 of a mask to these classes."""

    classes: tuple[str, ...] = ()
    values: Mapping[int, int] = field(default_factory=dict)  # others stay


_MASK_SETS = {
    "OxfordIIITPet": _MaskSet(
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        "7,349 photographs of cats and dogs; the animal, what is around it, and its outline",
        {"target_types": "segmentation"},
        ("animal", "background", "outline"),
        {1: 0, 2: 1, 3: 2},
    ),
    "VOCSegmentation": _MaskSet(
        {"train": {"image_set": "train"}, "val": {"image_set": "val"}},
        "2,913 photographs of Pascal VOC 2012, 20 kinds of objects and the background",
        {"year": "2012"},
        tuple(_VOC_CLASSES.split()),
    ),
}

_SETS = {
    "CIFAR10": _Set(_TRAIN_FLAG, "60,000 photographs of 32x32 pixels, 10 classes"),
    "CIFAR100": _Set(_TRAIN_FLAG, "60,000 photographs of 32x32 pixels, 100 classes"),
    "CLEVRClassification": _Set(_splits("train", "val"), "rendered scenes; how many objects"),
    "Caltech101": _Set(_WHOLE, "9,000 photographs of objects, 101 classes"),
    "Caltech256": _Set(_WHOLE, "30,000 photographs of objects, 257 classes"),
    "Country211": _Set(_splits("train", "valid", "test"), "63,300 photographs; the country, 211 classes"),
    "DTD": _Set(_splits("train", "val", "test"), "5,640 textures, 47 classes"),
    "EMNIST": _Set(
        {"train": {"train": True}, "test": {"train": False}},
        "131,600 handwritten letters and digits, 47 classes",
        {"split": "balanced"},
    ),
    "EuroSAT": _Set(_WHOLE, "27,000 satellite images, 10 kinds of land use"),
    "FER2013": _Set(_splits("train", "test"), "35,900 faces, 7 emotions; to be downloaded by hand"),
    "FGVCAircraft": _Set(_splits("train", "val", "test"), "10,000 photographs of aircraft, 100 variants"),
    "FashionMNIST": _Set(_TRAIN_FLAG, "70,000 grey pictures of clothes, 10 classes"),
    "Flowers102": _Set(_splits("train", "val", "test"), "8,189 photographs of flowers, 102 classes"),
    "Food101": _Set(_splits("train", "test"), "101,000 photographs of dishes, 101 classes"),
    "GTSRB": _Set(_splits("train", "test"), "39,270 traffic signs, 43 classes"),
    "INaturalist": _Set(
        {"train": {"version": "2021_train_mini"}, "val": {"version": "2021_valid"}},
        "600,000 photographs of living things, 10,000 species",
    ),
    "ImageNet": _Set(
        _splits("train", "val"), "1.3 million photographs, 1,000 classes; to be downloaded by hand"
    ),
    "Imagenette": _Set(
        _splits("train", "val"), "13,400 photographs, 10 easy ImageNet classes", {"size": "320px"}
    ),
    "KMNIST": _Set(_TRAIN_FLAG, "70,000 handwritten Japanese characters, 10 classes"),
    "MNIST": _Set(_TRAIN_FLAG, "70,000 handwritten digits, 10 classes"),
    "OxfordIIITPet": _Set(
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        "7,349 photographs of cats and dogs, 37 breeds",
    ),
    "PCAM": _Set(_splits("train", "val", "test"), "327,680 patches of lymph nodes; tumour or not"),
    "Places365": _Set(
        {"train": {"split": "train-standard"}, "val": {"split": "val"}},
        "1.8 million scenes, 365 classes",
        {"small": True},
    ),
    "QMNIST": _Set(_TRAIN_FLAG, "120,000 handwritten digits, 10 classes"),
    "RenderedSST2": _Set(
        _splits("train", "val", "test"), "9,613 pictures of sentences; positive or negative"
    ),
    "SEMEION": _Set(_WHOLE, "1,593 handwritten digits of 16x16 pixels, 10 classes"),
    "STL10": _Set(_splits("train", "test"), "13,000 photographs of 96x96 pixels, 10 classes"),
    "SUN397": _Set(_WHOLE, "108,754 scenes, 397 classes"),
    "SVHN": _Set(_splits("train", "test"), "99,289 house-number digits of 32x32 pixels, 10 classes"),
    "StanfordCars": _Set(
        _splits("train", "test"), "16,185 photographs of cars, 196 classes; to be downloaded by hand"
    ),
    "USPS": _Set(_TRAIN_FLAG, "9,298 handwritten digits of 16x16 pixels, 10 classes"),
}


def explain_unknown(name: str, where: str) -> NoReturn:
    """Raise the InputError for a torchvision data set that is not offered: unknown, or not classification."""
    class_name = name.partition("/")[2]
    known = [source for source in SOURCES if source.startswith("torchvision/")]
    import torchvision.datasets

    if class_name in torchvision.datasets.__all__:
        raise InputError(
            f"'{name}' is not a classification data set", where, nearest("", known, most=len(known))
        )
    raise InputError(f"unknown data set '{name}'", where, nearest(name, known))


def _read_masks(class_name: str) -> Raw:
    entry = _MASK_SETS[class_name]
    table = list(range(256))
    for value, label in entry.values.items():
        table[value] = label

    def with_mask(image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        return image, read_mask(mask, None).point(table)

    return _raw(class_name, entry, lambda item: with_mask(*item), entry.classes)


def _read(class_name: str) -> Raw:
    return _raw(class_name, _SETS[class_name], lambda item: (item[0], int(item[1])), None)


def _raw(
    class_name: str,
    entry: _Set,
    read_item: Callable[[Any], tuple[Image.Image, int | Image.Image]],
    classes: tuple[str, ...] | None,
) -> Raw:
    """Return the data set of all parts; `classes` are those of masks."""
    name = f"torchvision/{class_name}"
    datasets = _open_parts(class_name, entry)
    assigned = assign_parts(list(datasets), name)
    entries = [(part, index) for part, dataset in datasets.items() for index in range(len(dataset))]

    def read(position: int) -> tuple[Image.Image, int | Image.Image]:
        part, index = entries[position]
        return read_item(datasets[part][index])

    return Raw(
        classes or _class_names(next(iter(datasets.values()))),
        [f"{part}/{index:06d}" for part, index in entries],
        [assigned[part] for part, _ in entries],
        read,
        _LICENCE,
        _origin(class_name),
        masks=classes is not None,
    )


def _origin(class_name: str) -> str:
    return f"torchvision/{class_name}, torchvision {version('torchvision')}"


def _open_parts(class_name: str, entry: _Set) -> dict[str, Any]:
    """Return the data set's parts; download them first where they are missing.

    Several of torchvision's classes take any folder they find for a complete download. So the download goes
    to a temporary folder that gets its name once all parts could be opened.
    """
    root = locations.cache() / "downloads" / "torchvision" / class_name
    try:
        with locked(root.with_name(f"{class_name}.lock")):
            if not root.exists():
                temporary = root.with_name(f".{class_name}.tmp")
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                try:
                    _construct(class_name, entry, temporary, download=True)
                    temporary.rename(root)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        return _construct(class_name, entry, root, download=False)
    except ImportError as error:
        raise InputError(
            f"reading it needs the package {error.name}",
            f"torchvision/{class_name}",
            f"pip install {error.name}",
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"can't be downloaded or read ({' '.join(str(error).split())[:200]})",
            f"torchvision/{class_name}",
            f"check the connection, or put the files into {root} as torchvision's documentation says",
        ) from error


def _construct(class_name: str, entry: _Set, root: Path, *, download: bool) -> dict[str, Any]:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, class_name)
    taken = {name for base in kind.__mro__ for name in signature(base.__init__).parameters}
    common = {"root": root, **({"download": download} if "download" in taken else {}), **entry.more}
    return {part: kind(**common, **arguments) for part, arguments in entry.parts.items()}


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Return the class names if the class knows them; ImageNet's are tuples of synonyms."""
    names: Sequence[Any] = next(
        (
            getattr(dataset, key)
            for key in ("classes", "categories", "all_categories")
            if hasattr(dataset, key)
        ),
        (),
    )
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)


_LICENCE = "as the data set's authors state it; see torchvision.datasets in torchvision's documentation"

for _name, _entry in _SETS.items():
    SOURCES.add(
        Source(
            f"torchvision/{_name}",
            _entry.summary,
            _LICENCE,
            partial(_origin, _name),
            partial(_read, _name),
        )
    )
for _name, _entry in _MASK_SETS.items():
    MASK_SOURCES.add(
        Source(
            f"torchvision/{_name}",
            _entry.summary,
            _LICENCE,
            partial(_origin, f"{_name} masks"),
            partial(_read_masks, _name),
        )
    )
