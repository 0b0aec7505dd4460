"""A target's data become a decoded data set."""

import importlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import InputError
from bench.data.dataset import Dataset
from bench.data.framing import Framing
from bench.data.groups import regroup
from bench.data.sources.base import MASK_SOURCES, SOURCES, part_named
from bench.data.sources.mask_folder import IMAGES, MASKS
from bench.data.sources.table import columns_of, is_table, tables_in
from bench.study.schema import Target
from bench.system.locations import expanded

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

LABELS = "labels"  # a column of a table, or a folder beside `images/`


def load(target: Target, folder: Path | None = None, task: str = "classification") -> Dataset:
    """Return the decoded images of a target; the second time they are mapped from the store in milliseconds.

    Args:
        target: `data` names a packaged or downloaded data set, or a folder; `image_size` decides the size at
            which images are stored; `groups` or `group_pattern` which of them belong together.
        folder: a folder that replaces the source.
        task: whose module in `data/tasks` says what is a source, and how its images are stored.

    Raises:
        InputError: if there are no such data, or they are unusable or can't be downloaded.
    """
    dataset: Dataset = importlib.import_module(f"bench.data.tasks.{task}").load(target, folder)
    return regroup(dataset, target)


def storing(task: str, side: int, framing: Framing) -> "Callable[[Image.Image], np.ndarray]":
    """Return what makes of a picture what the data of a task would hold of it: uint8, shape (side, side, 3).

    Args:
        task: whose module in `data/tasks` says what is shown of a picture that is no square.
        side: pixels, that the data's images are kept at.
        framing: how they became squares.
    """
    return partial(importlib.import_module(f"bench.data.tasks.{task}").to_stored, side=side, framing=framing)


def is_known(name: str) -> bool:
    """Say whether `target.data` names a data set, or a folder or table that is there."""
    listed = name in SOURCES or name in MASK_SOURCES or name.startswith("huggingface/")
    return listed or expanded(name).is_dir() or is_table(expanded(name))


def task_at(path: Path) -> str:
    """Return what a folder or table asks for, by how it is laid out: the name of a task.

    Masks beside images are for segmentation; lists of labels, in a table or beside images, are several labels
    an image. All else is a class for each image.

    Raises:
        InputError: if it can't be read.
    """
    try:
        tables = [path] if path.is_file() else [table for table, _ in tables_in(path)]
        if any(LABELS in columns_of(table) for table in tables):
            return "multilabel"
        parts = [] if path.is_file() else [p for p in path.iterdir() if part_named(p.name) is not None]
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(error.filename or path)) from error
    for folder in (path, *parts):
        for beside, task in ((MASKS, "segmentation"), (LABELS, "multilabel")):
            if (folder / IMAGES).is_dir() and (folder / beside).is_dir():
                return task
    return "classification"
