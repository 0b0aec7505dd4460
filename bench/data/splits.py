"""A data set is cut into train, val and test: stratified, nested, groups whole, and fixed by seeds alone."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from bench.core.errors import InputError
from bench.data.counter_rng import hashed
from bench.data.dataset import (
    PART_NAMES,
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
    Dataset,
    Split,
)
from bench.data.groups import LOOK_ALIKE
from bench.study.schema import Target

# one stream of random numbers for each use
_CUT_TEST, _CUT_VAL, _LIMIT_TEST, _LIMIT_VAL, _DRAW_TRAIN, _DEAL = range(6)
_MOST_DEALS = 100  # until groups are dealt out so that no class is missing anywhere


def split(dataset: Dataset, target: Target, seed: int) -> Split:
    """Return the indices to train on, to select by and to test on, each sorted.

    The parts that the data set assigns are kept. Otherwise test, then val, are cut off, stratified by class,
    and so that no group is in two parts. `target.split_seed` alone decides who is in the pools, in val and in
    test; `seed` decides only which of the pool's images make up `target.train_labels`. A larger number of
    labels contains the smaller ones. Val never has more images than train: nobody labels more to choose by
    than to learn from. Of val and test there may be fewer images than asked for: see `shortfalls`.

    Raises:
        InputError: if train_labels exceeds the pool, a class is missing from a part, or a group is in two
            parts that the data set assigns.
    """
    labels = dataset.labels
    make_parts = _by_image if dataset.groups is None else _by_group
    pool, val, test = make_parts(dataset, target)
    for part, indices in ((TRAIN, pool), (VAL, val), (TEST, test)):
        _check_classes(dataset, indices, part)
    if target.train_labels is not None and target.train_labels > len(pool):
        raise InputError(
            f"asks for {target.train_labels} images, there are {len(pool)} to train on",
            "target.train_labels",
            f"give at most {len(pool)}",
        )

    cap = max(target.cap or len(labels), len(dataset.classes))

    def take(indices: np.ndarray, count: int | None, stream: tuple[int, ...], part: int) -> np.ndarray:
        taken = np.sort(ordered(indices, labels, target.sampling, stream)[: min(count or cap, cap)])
        _check_classes(dataset, taken, part, f"target.{PART_NAMES[part]}_labels")
        return taken

    train = take(pool, target.train_labels, (target.split_seed, _DRAW_TRAIN, seed), TRAIN)
    most = max(len(train), len(dataset.classes))
    return Split(
        train=train,
        val=take(val, min(target.val_labels or most, most), (target.split_seed, _LIMIT_VAL), VAL),
        test=take(test, target.test_labels, (target.split_seed, _LIMIT_TEST), TEST),
    )


def shortfalls(parts: Split, target: Target, classes: int) -> list[str]:
    """Return what of val and test is less than the study asks for, and why."""
    cap = max(target.cap, classes) if target.cap else None
    said = []
    for part, count, there in (
        ("val", target.val_labels, len(parts.val)),
        ("test", target.test_labels, len(parts.test)),
    ):
        if count is not None and there < min(count, cap or count):
            limited = part == "val" and there == max(len(parts.train), classes)
            why = f"there are {there:,}, no more than to train on" if limited else f"{there:,} are left"
            said.append(f"asked for {count:,} {part} images, {why}")
    return said


def overlap(training_sets: Sequence[np.ndarray]) -> float:
    """Return the share of its images that a training set has in common with another, mean over all pairs.

    Of a single set it is 0: there is nothing to be alike.
    """
    shares = [
        len(np.intersect1d(one, other)) / min(len(one), len(other))
        for one, other in combinations(training_sets, 2)
    ]
    return float(np.mean(shares)) if shares else 0.0


def ordered(indices: np.ndarray, labels: np.ndarray, sampling: str, stream: tuple[int, ...]) -> np.ndarray:
    """Return the indices in an order of which every prefix is a stratified sample.

    Each class is shuffled. `proportional` then merges the classes by (j + 1/2) / n, j being the place within
    a class of n images: the divisor method of Webster and Sainte-Laguë, the unbiased way to round shares, in
    which no class loses an image when the sample grows (Balinski and Young, Fair Representation, 1982). The
    first image of every class comes before all others. `balanced` deals out one image of each class in turn,
    for as long as a class has any.

    Args:
        indices: int64, shape (n,), into labels.
        labels: int64, shape (N,), of the whole data set.
        sampling: `proportional` or `balanced`.
        stream: seeds of the shuffle.
    """
    shuffle = hashed(*stream, indices)
    by_class = np.lexsort((indices, shuffle, labels[indices]))
    indices = indices[by_class]
    _, first, number, count = np.unique(
        labels[indices], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.arange(len(indices)) - first[number]
    key = (place + 0.5) / count[number] if sampling == "proportional" else place
    turn = hashed(*stream, -1, labels[indices])  # who comes first among equals
    return np.asarray(indices[np.lexsort((labels[indices], turn, key, place > 0))], dtype=np.int64)


def _by_image(dataset: Dataset, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who is in the pool, in val and in test, where each image stands for itself."""
    pool, val, test = _assigned(dataset.parts)
    if not len(test):
        pool, test = _cut(pool, dataset.labels, target.test_fraction, (target.split_seed, _CUT_TEST))
    if not len(val):
        pool, val = _cut(pool, dataset.labels, target.val_fraction, (target.split_seed, _CUT_VAL))
    return pool, val, test


def _assigned(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images of the pool, of val and of test; the pool has what is not assigned."""
    is_pool = (parts == TRAIN) | (parts == UNASSIGNED)
    return np.flatnonzero(is_pool), np.flatnonzero(parts == VAL), np.flatnonzero(parts == TEST)


def _cut(
    pool: np.ndarray, labels: np.ndarray, fraction: float, stream: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what remains and what is cut off: the fraction, but at least one image of each class."""
    order = ordered(pool, labels, "proportional", stream)
    count = max(round(fraction * len(pool)), len(np.unique(labels[pool])))
    return np.sort(order[count:]), np.sort(order[:count])


def _by_group(dataset: Dataset, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who is in the pool, in val and in test, such that no group is in two of them.

    scikit-learn's StratifiedGroupKFold makes folds of equal size, and GroupShuffleSplit knows no classes;
    both may draw otherwise in another version, and then the same key would stand for other parts.
    """
    assert dataset.groups is not None
    _check_crossing(dataset)
    shares = _shares(dataset.parts, target)
    pool, *_ = _assigned(dataset.parts)
    if (count := len(np.unique(dataset.groups[pool]))) < len(shares):
        what = f"{count} {dataset.group_kind}s can't be shared out among {len(shares)} parts"
        raise InputError(what, dataset.name, "give more, or say target.groups: none")
    parts = dataset.parts.copy()
    for attempt in range(_MOST_DEALS if len(shares) > 1 else 0):
        parts[pool] = _deal(dataset, pool, shares, (target.split_seed, _DEAL, attempt))
        if not any(dataset.missing_classes(np.flatnonzero(parts == part)) for part in shares):
            break
    return _assigned(parts)


def _shares(assigned: np.ndarray, target: Target) -> Mapping[int, float]:
    """Return which share of the pool is to go to each part; those that are assigned get nothing of it."""
    test = 0.0 if (assigned == TEST).any() else target.test_fraction
    val = 0.0 if (assigned == VAL).any() else target.val_fraction * (1 - test)
    shares = {TEST: test, VAL: val, TRAIN: 1 - test - val}
    return {part: share for part, share in shares.items() if share}


def _deal(
    dataset: Dataset, pool: np.ndarray, shares: Mapping[int, float], stream: tuple[int, ...]
) -> np.ndarray:
    """Return the part of each image of the pool, int8, shape (n,): groups are dealt out whole.

    They are shuffled. Each goes to the part that has the least of its classes so far, beside its share, so
    that no part has a second group of a class before all have a first one: the divisor method of Adams
    (Balinski and Young 1982), with groups for seats. A group of several classes counts by what share of each
    class it holds, so the rare ones count most.
    """
    assert dataset.groups is not None
    groups, label = dataset.groups[pool], np.unique(dataset.labels[pool], return_inverse=True)[1]
    order = np.lexsort((groups, hashed(*stream, groups)))
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    size, kinds = np.bincount(label), list(shares)
    dealt = np.zeros((len(kinds), len(size)))
    parts = np.empty(len(pool), np.int8)
    for members in np.split(order, ends):
        classes, counts = np.unique(label[members], return_counts=True)
        held = counts / size[classes]
        filled = dealt[:, classes] @ held / list(shares.values())
        part = int(filled.argmin())
        dealt[part, classes] += held
        parts[members] = kinds[part]
    return parts


def _check_crossing(dataset: Dataset) -> None:
    """Raise InputError for a group in two parts that the data set assigns; what only looks alike may be."""
    if dataset.groups is None or dataset.group_kind == LOOK_ALIKE:
        return
    parts = np.where(dataset.parts == UNASSIGNED, TRAIN, dataset.parts)
    for part, name in PART_NAMES.items():
        crossing = np.intersect1d(dataset.groups[parts == part], dataset.groups[parts > part])
        if len(crossing):
            group = int(crossing[0])
            other = PART_NAMES[int(parts[(dataset.groups == group) & (parts > part)][0])]
            which = f"the {dataset.group_kind} '{dataset.group_names[group]}'"
            which += f" (one of {len(crossing)} such)" if len(crossing) > 1 else ""
            what, remedy = f"{which} is in both {name} and {other}", "keep each in one part"
            raise InputError(what, dataset.name, f"{remedy}, or say target.groups: none")


def _check_classes(dataset: Dataset, indices: np.ndarray, part: int, limit: str = "") -> None:
    missing = dataset.missing_classes(indices)
    if not missing:
        return
    what = f"the class '{missing[0]}' is missing from {PART_NAMES[part]}"
    if len(missing) > 1:
        what += f", and {len(missing) - 1} more"
    remedy = f"ask for at least {len(dataset.classes)}" if limit else "add images of it or remove the class"
    if dataset.groups is not None and not limit:
        what += f": each {dataset.group_kind} goes to one part whole"
        remedy = "add groups that hold it, remove the class, or say target.groups: none"
    raise InputError(what, limit or dataset.name, remedy)
