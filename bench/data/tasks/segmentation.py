"""Data of segmentation: packaged sets with masks, and folders of images and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.core.errors import InputError, nearest
from bench.data.dataset import Dataset
from bench.data.decoding import to_whole_square
from bench.data.framing import Framing
from bench.data.image_store import open_or_decode
from bench.data.sources.base import MASK_SOURCES, SOURCES, Source, unknown_data
from bench.data.sources.mask_folder import mask_folder_source
from bench.study.schema import Target
from bench.system.locations import expanded


def load(target: Target, folder: Path | None) -> Dataset:
    """Return the decoded images and masks of a target, whole: without a margin for crops."""
    source = mask_folder_source(folder, target) if folder is not None else _find_source(target)
    return open_or_decode(source, target.image_size)


def to_stored(image: Image.Image, side: int, framing: Framing) -> np.ndarray:
    """Return a picture as it would be stored at a side: whole on a square, uint8, shape (side, side, 3)."""
    return to_whole_square(image, side, framing)


def _find_source(target: Target) -> Source:
    name = target.data
    if name in MASK_SOURCES:
        return MASK_SOURCES[name]
    path = expanded(name)
    if path.is_dir():
        return mask_folder_source(path, target)
    if name in SOURCES:
        raise InputError(f"'{name}' has no masks", "target.data", nearest(name, MASK_SOURCES))
    raise unknown_data(name, "neither a data set with masks nor a folder", MASK_SOURCES)
