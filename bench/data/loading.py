"""A target's data become a decoded data set."""

from collections.abc import Iterable
from pathlib import Path

from bench.core.errors import InputError, nearest
from bench.data.dataset import Dataset, stored_side
from bench.data.image_store import open_or_decode
from bench.data.sources import torchvision
from bench.data.sources.base import MASK_SOURCES, SOURCES, Source
from bench.data.sources.class_folder import folder_source
from bench.data.sources.huggingface import huggingface_source
from bench.data.sources.mask_folder import mask_folder_source
from bench.study.schema import Target, Task
from bench.system.locations import expanded


def load(target: Target, folder: Path | None = None, task: Task = "classification") -> Dataset:
    """Return the decoded images of a target; the second time they are mapped from the store in milliseconds.

    Args:
        target: `data` names a source: one of SOURCES or MASK_SOURCES, `huggingface/<name>[@revision]`, or a
            folder; `image_size` decides the size at which images are stored.
        folder: a folder that replaces the source.
        task: images for segmentation have masks, and are stored whole, without a margin for crops.

    Raises:
        InputError: if there are no such data, or they are unusable or can't be downloaded.
    """
    if task == "segmentation":
        source = mask_folder_source(folder, target) if folder is not None else find_mask_source(target)
        return open_or_decode(source, target.image_size)
    source = folder_source(folder) if folder is not None else find_source(target.data)
    return open_or_decode(source, stored_side(target.image_size))


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
    if path.is_dir():
        return folder_source(path)
    if path.exists():
        raise InputError(f"{name} is a file", where, "give a folder of class folders")
    raise InputError(f"'{name}' is neither a data set nor a folder", where, _remedy(name, SOURCES))


def find_mask_source(target: Target) -> Source:
    """Return the source of images with masks that `target.data` names; raise InputError if there is none."""
    where, name = "target.data", target.data
    if name in MASK_SOURCES:
        return MASK_SOURCES[name]
    path = expanded(name)
    if path.is_dir():
        return mask_folder_source(path, target)
    if name in SOURCES:
        raise InputError(f"'{name}' has no masks", where, nearest(name, MASK_SOURCES))
    what = f"'{name}' is neither a data set with masks nor a folder"
    raise InputError(what, where, _remedy(name, MASK_SOURCES))


def is_known(name: str) -> bool:
    """Say whether `target.data` names a data set, or a folder that is there."""
    return (
        name in SOURCES or name in MASK_SOURCES or name.startswith("huggingface/") or expanded(name).is_dir()
    )


def _remedy(name: str, sources: Iterable[str]) -> str:
    known, folder = nearest(name, sources), "give a folder with --data DIR"
    return f"{known} Otherwise {folder}" if known.endswith("?") else f"{folder}; {known}"
