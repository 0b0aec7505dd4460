"""A target's data become a decoded data set."""

import importlib
from pathlib import Path

from bench.data.dataset import Dataset
from bench.data.groups import regroup
from bench.data.sources.base import MASK_SOURCES, SOURCES
from bench.data.sources.table import is_table
from bench.study.schema import Target
from bench.system.locations import expanded


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


def is_known(name: str) -> bool:
    """Say whether `target.data` names a data set, or a folder or table that is there."""
    listed = name in SOURCES or name in MASK_SOURCES or name.startswith("huggingface/")
    return listed or expanded(name).is_dir() or is_table(expanded(name))
