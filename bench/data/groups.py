"""Which images belong together: as their source says, by folder, by name, or because they look alike.

Images of one patient, module or drive resemble each other more than those of another. Parts that share a
group measure how well a model recognises the group, and an interval that takes its images for independent is
too narrow; so no group crosses train, val and test.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from bench.core.errors import InputError
from bench.data.dataset import UNASSIGNED, Dataset
from bench.data.near_duplicates import alike
from bench.study.schema import Target

LOOK_ALIKE = "set of near-duplicates"  # these are found, not declared: they may cross parts that are given
# Names are a sign where most images are of a series of some length, and there are more series than classes
# in each part would explain.
_SHARE, _LONG, _SERIES_PER_CLASS = 0.9, 3, 4
_COPIES = 0.05  # of the test images: from this share on, near-duplicates are no accident
_IF_SO = "if those of a {} belong together, say"


def regroup(dataset: Dataset, target: Target) -> Dataset:
    """Return a data set with the groups that `target.groups` or `target.group_pattern` asks for.

    Raises:
        InputError: if the names of images don't say what is asked.
    """
    if target.group_pattern is not None:
        return dataset.grouped(_by_pattern(dataset, target.group_pattern), "group")
    return _WAYS[target.groups](dataset)


def signs(dataset: Dataset, target: Target) -> str:
    """Return why images without groups look as if they had some, with what to do; or nothing.

    The signs are folders within the classes, and series of names that differ only in their last number, where
    there are many series: frames of drives, slices of patients.
    """
    if dataset.groups is not None or target.groups != "auto":
        return ""
    most = _SHARE * len(dataset.names)
    if sum(map(bool, _folders(dataset))) >= most:
        return f"images lie in folders within their class; {_IF_SO.format('folder')} target.groups: folder"
    sizes = Counter(_series(name) for name in dataset.names)
    series = {name: size for name, size in sizes.items() if name and size >= _LONG}
    if len(series) < _SERIES_PER_CLASS * len(np.unique(dataset.labels)) or sum(series.values()) < most:
        return ""
    longest = max(series, key=series.__getitem__)
    found = f"the names of images form {len(series):,} series, of which '{longest}' has {series[longest]:,}"
    return f"{found}; {_IF_SO.format('series')} so with target.group_pattern"


def signs_of_copies(dataset: Dataset, target: Target, copies: int, images: int) -> str:
    """Return the same of so many test images that have a near-duplicate in another part, of all of them."""
    is_dealt = bool((dataset.parts == UNASSIGNED).all())
    if dataset.groups is not None or target.groups != "auto" or not is_dealt or copies < _COPIES * images:
        return ""
    have = "has" if copies == 1 else "have"
    found = f"{copies:,} of {images:,} test images {have} a near-duplicate in another part"
    return f"{found}; target.groups: near_duplicates would keep them together"


def _as_given(dataset: Dataset) -> Dataset:
    return dataset


def _by_folder(dataset: Dataset) -> Dataset:
    """Group images by the folder within their class: class/group/image, or part/class/group/image."""
    folders = _folders(dataset)
    if "" in folders:
        name = dataset.names[folders.index("")]
        what = f"{name} lies in no folder within its class"
        raise InputError(what, "target.groups", "put the images into class/group/, or say groups: none")
    return dataset.grouped(folders, "folder")


def _by_look(dataset: Dataset) -> Dataset:
    """Group near-duplicates, and what they are near-duplicates of; where there are none, nothing."""
    firsts = alike(dataset.images)
    if len(np.unique(firsts)) == len(firsts):
        return dataset.ungrouped()
    return dataset.grouped([dataset.names[first] for first in firsts], LOOK_ALIKE)


_WAYS: Mapping[str, Callable[[Dataset], Dataset]] = {
    "auto": _as_given,
    "none": Dataset.ungrouped,
    "folder": _by_folder,
    "near_duplicates": _by_look,
}


def _by_pattern(dataset: Dataset, pattern: str) -> Sequence[str]:
    """Return what a pattern finds in parentheses in each name."""
    found = [re.search(pattern, name) for name in dataset.names]
    for name, match in zip(dataset.names, found, strict=True):
        if match is None or not match.group(1):
            raise InputError(
                f"it finds nothing in the name {name}", "target.group_pattern", "mend the pattern"
            )
    return [match.group(1) for match in found if match is not None]


def _folders(dataset: Dataset) -> list[str]:
    """Return for each image the folder within its class that it lies in, the outermost; empty: none."""
    classes = set(dataset.classes)

    def inside(name: str) -> str:
        *folders, _ = PurePosixPath(name).parts
        place = next((n for n, folder in enumerate(folders[:2]) if folder in classes), len(folders))
        return folders[place + 1] if place + 1 < len(folders) else ""  # behind class, or part and class

    return [inside(name) for name in dataset.names]


def _series(name: str) -> str:
    """Return a file's name up to its last number."""
    return re.sub(r"\d+\D*$", "", PurePosixPath(name).name)
