"""Near-duplicates: across train, val and test the leak that a split by random choice lets through."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.data.dataset import Dataset, Split

GRID = 16  # cells, side of the grey thumbnails that are compared
LEVELS = 1.0  # grey levels of 256 by which two thumbnails may differ (root mean square) ...
CONTRAST = 0.05  # ... plus this share of the image's own contrast (its standard deviation)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CHUNK = 256


class NearDuplicate(NamedTuple):
    """Two images that look the same but lie in different parts."""

    name_a: str
    part_a: str
    name_b: str
    part_b: str


def near_duplicates(dataset: Dataset, splits: Sequence[Split]) -> list[NearDuplicate]:
    """Return, for each val and test image that has one, its nearest near-duplicate in an earlier part.

    Two images are near-duplicates if their grey thumbnails differ by little beside the contrast of the image
    itself: recompressed, rescaled or slightly brighter copies do, other pictures of the same kind don't, and
    flat images, which a perceptual hash could not tell apart, must agree in their grey level. All pairs are
    compared, as one matrix product: a second for 10,000 images.

    Args:
        dataset: decoded.
        splits: of all seeds: each may train on other images, val and test are the same.
    """
    pairs: list[NearDuplicate] = []
    train = np.unique(np.concatenate([split.train for split in splits]))
    parts = {"train": train, "val": splits[0].val, "test": splits[0].test}
    thumbnails = {part: _thumbnails(dataset.images, indices) for part, indices in parts.items()}
    for part, earlier in (("val", ["train"]), ("test", ["train", "val"])):
        others = np.concatenate([parts[p] for p in earlier])
        for own, other in _nearest(thumbnails[part], np.concatenate([thumbnails[p] for p in earlier])):
            other_part = earlier[0] if other < len(parts[earlier[0]]) else earlier[-1]
            names = dataset.names[parts[part][own]], dataset.names[others[other]]
            pairs.append(NearDuplicate(names[0], part, names[1], other_part))
    return pairs


def alike(images: np.ndarray) -> np.ndarray:
    """Return for each image the first of those that look the same: itself, where it is the first or alone.

    Near-duplicates of near-duplicates are taken to be the same, too.

    Args:
        images: uint8, shape (N, S, S, 3).

    Returns:
        int64, shape (N,).
    """
    thumbnails = _thumbnails(images, np.arange(len(images)))
    norms = (thumbnails**2).sum(axis=1)
    firsts = np.arange(len(images))
    for start in range(0, len(images), _CHUNK):
        some, end = thumbnails[start : start + _CHUNK], start + _CHUNK
        squares = norms[start:end, None] + norms[:end] - 2 * some @ thumbnails[:end].T  # |a - b|^2
        own, other = np.nonzero(squares <= some.shape[1] * _most_apart(some)[:, None] ** 2)
        # those before are joined already: one of each set stands for all, or a thousand black images would
        # make a million pairs
        firsts = _joined(firsts, np.unique([start + own, firsts[other]], axis=1))
    return firsts


def _joined(firsts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the first of each image's set, after sets are joined: (N,) and pairs (2, P) to (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    every = np.arange(len(firsts))
    links = np.concatenate([pairs, [every, firsts]], axis=1)
    graph = coo_array((np.ones(links.shape[1], bool), tuple(links)), shape=(len(every), len(every)))
    _, members = connected_components(graph, directed=False)
    _, first, number = np.unique(members, return_index=True, return_inverse=True)
    return np.asarray(first[number], dtype=np.int64)


def in_words(pairs: Sequence[NearDuplicate], split: Split) -> str:
    """Say how many images of test and val have a near-duplicate, and where."""
    said = []
    for part, size in (("test", len(split.test)), ("val", len(split.val))):
        counts = Counter(pair.part_b for pair in pairs if pair.part_a == part)
        found = [f"{counts[other]:,} in {other}" for other in ("train", "val") if counts[other]]
        if found:
            count, _, where = ", ".join(found).partition(" ")
            have = "has" if count == "1" else "have"
            said.append(f"{count} of {size:,} {part} images {have} a near-duplicate {where}")
    return "; ".join(said) or "none found"


def _nearest(own: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Return (own, other) positions: for each own thumbnail the closest other one, if close enough."""
    found = []
    norms = (others**2).sum(axis=1)
    for start in range(0, len(own), _CHUNK):
        some = own[start : start + _CHUNK]
        squares = norms - 2 * some @ others.T  # |a - b|^2 less |a|^2
        closest = squares.argmin(axis=1)
        apart = np.sqrt(((some - others[closest]) ** 2).mean(axis=1))
        near = apart <= _most_apart(some)
        found += [(start + int(row), int(closest[row])) for row in np.flatnonzero(near)]
    return found


def _most_apart(thumbnails: np.ndarray) -> np.ndarray:
    """Return the grey levels by which others may differ from thumbnails and be near-duplicates of them."""
    return np.asarray(LEVELS + CONTRAST * thumbnails.std(axis=1))


def _thumbnails(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return grey thumbnails by averaging cells: float32, shape (n, GRID * GRID), -128 to 127."""
    edges = np.arange(GRID + 1) * images.shape[1] // GRID
    sizes = np.maximum(np.diff(edges), 1)  # an image smaller than the grid repeats its pixels
    result = np.empty((len(indices), GRID * GRID), dtype=np.float32)
    for start in range(0, len(indices), _CHUNK):
        grey = images[indices[start : start + _CHUNK]] @ _LUMA
        sums = np.add.reduceat(np.add.reduceat(grey, edges[:-1], axis=1), edges[:-1], axis=2)
        means = sums / (sizes[:, None] * sizes)
        result[start : start + _CHUNK] = means.reshape(len(means), -1) - 128
    return result
