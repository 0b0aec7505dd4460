"""Near-duplicates across the parts."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import Dataset, Split
from bench.data.near_duplicates import NearDuplicate, in_words, near_duplicates

SIDE = 40


def smooth(number: int, count: int) -> np.ndarray:
    """Return random images with structure: uint8, shape (count, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(s).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for s in small]
    )


def find(train, val, test):
    images = np.concatenate([train, val, test])
    ends = np.cumsum([len(train), len(val), len(test)])
    names = tuple(f"image {number}" for number in range(len(images)))
    unused = np.zeros(len(images), dtype=np.int64)
    dataset = Dataset("made", ("a",), images, unused, unused.astype(np.int8), names, "")
    parts = Split(*(np.arange(end - len(p), end) for end, p in zip(ends, (train, val, test), strict=True)))
    return near_duplicates(dataset, [parts])


def test_different_images_are_none():
    assert find(smooth(0, 300), smooth(1, 50), smooth(2, 50)) == []


def compressed(image):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def smaller_and_back(image):
    return np.asarray(Image.fromarray(image).resize((24, 24)).resize((SIDE, SIDE)))


def brighter(image):
    return np.minimum(image.astype(int) + 2, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change", [np.copy, compressed, smaller_and_back, brighter], ids=lambda c: c.__name__
)
def test_a_changed_copy_is_found_in_every_pair_of_parts(change):
    train, val, test = smooth(0, 30), smooth(1, 10), smooth(2, 10)
    val[3], test[4], test[5] = change(train[7]), change(train[8]), change(val[6])
    assert find(train, val, test) == [
        ("image 33", "val", "image 7", "train"),
        ("image 44", "test", "image 8", "train"),
        ("image 45", "test", "image 36", "val"),
    ]


def test_copies_within_a_part_are_no_leak():
    train = smooth(0, 10)
    assert find(np.concatenate([train, train]), smooth(1, 5), smooth(2, 5)) == []


def test_flat_images_are_duplicates_only_at_the_same_level():
    def flat(level):
        return np.full((1, SIDE, SIDE, 3), level, dtype=np.uint8)

    assert find(flat(0), flat(100), flat(200)) == []
    assert [pair.name_a for pair in find(flat(100), flat(101), flat(200))] == ["image 1"]


def test_the_training_images_of_every_seed_are_compared():
    images = np.concatenate([smooth(0, 20), smooth(0, 20)[15:17]])
    unused = np.zeros(22, dtype=np.int64)
    dataset = Dataset("made", ("a",), images, unused, unused.astype(np.int8), tuple(map(str, range(22))), "")
    val, test = np.array([20]), np.array([21])
    seeds = [Split(np.array(train), val, test) for train in ([0, 1, 2], [2, 3, 16], [15, 1, 2])]
    assert near_duplicates(dataset, seeds[:1]) == []
    assert near_duplicates(dataset, seeds) == [
        ("20", "val", "15", "train"),
        ("21", "test", "16", "train"),
    ]


def test_they_are_counted_in_words():
    def pairs(part, other, count):
        return [NearDuplicate("a", part, "b", other)] * count

    split = Split(np.arange(9), np.arange(380), np.arange(1950))
    found = pairs("val", "train", 1) + pairs("test", "train", 1035) + pairs("test", "val", 10)
    assert in_words(found, split) == (
        "1,035 of 1,950 test images have a near-duplicate in train, 10 in val; "
        "1 of 380 val images has a near-duplicate in train"
    )
    assert in_words(pairs("test", "val", 2), split) == "2 of 1,950 test images have a near-duplicate in val"
    assert in_words([], split) == "none found"


def test_images_smaller_than_the_thumbnails():
    train = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    assert [pair.name_b for pair in find(train, train[3:4], train[5:6])] == ["image 3", "image 5"]
