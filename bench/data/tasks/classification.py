"""Data of classification: packaged and downloaded sets, folders of class folders, and tables of images."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.errors import InputError
from bench.data.dataset import Dataset, stored_side
from bench.data.decoding import to_square
from bench.data.framing import Framing
from bench.data.image_store import open_or_decode
from bench.data.sources import torchvision
from bench.data.sources.base import MASK_SOURCES, SOURCES, Source, unknown_data
from bench.data.sources.class_folder import folder_source
from bench.data.sources.huggingface import huggingface_source
from bench.data.sources.table import is_table, table_source
from bench.study.schema import Target
from bench.system.locations import expanded


def load(target: Target, folder: Path | None) -> Dataset:
    """Return the decoded images of a target, with a margin for crops; `folder` replaces its data."""
    source = _source_at(folder) if folder is not None else find_source(target.data)
    return open_or_decode(source, stored_side(target.image_size), target.fit)


def to_stored(image: Image.Image, side: int, framing: Framing) -> np.ndarray:
    """Return a picture as it would be stored at a side: uint8, shape (side, side, 3)."""
    return to_square(image, side, framing)


def find_source(name: str) -> Source:
    """Return the source that `target.data` names; raise InputError with the nearest valid name."""
    where = "target.data"
    if name in SOURCES:
        return SOURCES[name]
    if name in MASK_SOURCES:
        raise InputError(f"'{name}' has a class per pixel", where, "say task: segmentation")
    if name.startswith("huggingface/"):
        return huggingface_source(name)
    if name.startswith("torchvision/"):
        torchvision.explain_unknown(name, where)
    path = expanded(name)
    if path.is_dir() or is_table(path):
        return _source_at(path)
    if path.exists():
        raise InputError(f"{name} is a file", where, "give a folder of class folders, or a table (.csv)")
    raise unknown_data(name, "neither a data set nor a folder", SOURCES)


def _source_at(path: Path) -> Source:
    """Return the source of a folder, or of a table in it or by itself."""
    return table_source(path) if is_table(path) else folder_source(path)
