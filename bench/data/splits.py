"""A data set is cut into train, val and test: stratified, nested, and fixed by seeds alone."""

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
from bench.study.schema import Target

# one stream of random numbers for each use
_CUT_TEST, _CUT_VAL, _LIMIT_TEST, _LIMIT_VAL, _DRAW_TRAIN = range(5)


def split(dataset: Dataset, target: Target, seed: int) -> Split:
    """Return the indices to train on, to select by and to test on, each sorted.

    The parts that the data set assigns are kept. Otherwise test, then val, are cut off, stratified by class.
    `target.split_seed` alone decides who is in the pools, in val and in test; `seed` decides only which of
    the pool's images make up `target.train_labels`. A larger number of labels contains the smaller ones. Of
    val and test there may be fewer images than asked for: see `shortfalls`.

    Raises:
        InputError: if train_labels exceeds the pool, or a class is missing from a part.
    """
    labels = dataset.labels
    pool = np.flatnonzero((dataset.parts == TRAIN) | (dataset.parts == UNASSIGNED))
    test = np.flatnonzero(dataset.parts == TEST)
    val = np.flatnonzero(dataset.parts == VAL)
    if not len(test):
        pool, test = _cut(pool, labels, target.test_fraction, (target.split_seed, _CUT_TEST))
    if not len(val):
        pool, val = _cut(pool, labels, target.val_fraction, (target.split_seed, _CUT_VAL))
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

    return Split(
        train=take(pool, target.train_labels, (target.split_seed, _DRAW_TRAIN, seed), TRAIN),
        val=take(val, target.val_labels, (target.split_seed, _LIMIT_VAL), VAL),
        test=take(test, target.test_labels, (target.split_seed, _LIMIT_TEST), TEST),
    )


def shortfalls(parts: Split, target: Target, classes: int) -> list[str]:
    """Return what of val and test is less than the study asks for, because the data set has no more."""
    cap = max(target.cap, classes) if target.cap else None
    said = []
    for part, count, there in (
        ("val", target.val_labels, len(parts.val)),
        ("test", target.test_labels, len(parts.test)),
    ):
        if count is not None and there < min(count, cap or count):
            said.append(f"asked for {count:,} {part} images, {there:,} are left")
    return said


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


def _cut(
    pool: np.ndarray, labels: np.ndarray, fraction: float, stream: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what remains and what is cut off: the fraction, but at least one image of each class."""
    order = ordered(pool, labels, "proportional", stream)
    count = max(round(fraction * len(pool)), len(np.unique(labels[pool])))
    return np.sort(order[count:]), np.sort(order[:count])


def _check_classes(dataset: Dataset, indices: np.ndarray, part: int, limit: str = "") -> None:
    missing = dataset.missing_classes(indices)
    if not missing:
        return
    what = f"the class '{missing[0]}' is missing from {PART_NAMES[part]}"
    if len(missing) > 1:
        what += f", and {len(missing) - 1} more"
    remedy = f"ask for at least {len(dataset.classes)}" if limit else "add images of it or remove the class"
    raise InputError(what, limit or dataset.name, remedy)
