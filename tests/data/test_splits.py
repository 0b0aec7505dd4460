"""Splits: stratified, nested, disjoint, and fixed by their seeds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.data.dataset import (
    TEST,
    TRAIN,
    UNASSIGNED,
    VAL,
    Dataset,
)
from bench.data.loading import load
from bench.data.sources.base import MASK_SOURCES, SOURCES
from bench.data.splits import ordered, overlap, shortfalls, split
from bench.study.loading import available
from bench.study.loading import load as load_study
from bench.study.schema import Target

COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=8)
SAMPLING = st.sampled_from(["proportional", "balanced"])
SEEDS = st.integers(0, 2**32)


def make_dataset(labels, parts=None) -> Dataset:
    labels = np.asarray(labels, dtype=np.int64)
    return Dataset(
        name="made",
        classes=tuple(f"class {label}" for label in range(labels.max() + 1)),
        images=np.zeros((len(labels), 2, 2, 3), dtype=np.uint8),
        labels=labels,
        parts=np.full(len(labels), UNASSIGNED, np.int8)
        if parts is None
        else np.asarray(parts, dtype=np.int8),
        names=tuple(map(str, range(len(labels)))),
        digest="",
    )


def mixed_labels(counts) -> np.ndarray:
    return np.random.default_rng(sum(counts)).permutation(np.repeat(np.arange(len(counts)), counts))


def target(**values) -> Target:
    return Target(data="made", **values)


@given(COUNTS, SAMPLING, SEEDS)
def test_an_order_is_a_permutation_that_starts_with_every_class(counts, sampling, seed):
    labels = mixed_labels(counts)
    order = ordered(np.arange(len(labels)), labels, sampling, (seed,))
    assert sorted(order) == list(range(len(labels)))
    assert set(labels[order[: len(counts)]]) == set(range(len(counts)))


@given(COUNTS, SEEDS)
def test_proportional_prefixes_are_those_of_webster(counts, seed):
    """Give the seats one by one, each to the class with the largest quotient n / (j + 1/2), one is free."""
    labels = mixed_labels(counts)
    order = ordered(np.arange(len(labels)), labels, "proportional", (seed,))
    seats = np.ones(len(counts), dtype=int)
    for number, index in enumerate(order[len(counts) :]):
        quotients = np.where(seats < counts, np.array(counts) / (seats + 0.5), 0)
        assert quotients[labels[index]] == pytest.approx(quotients.max())
        seats[labels[index]] += 1
        assert seats.sum() == len(counts) + number + 1


@given(st.integers(2, 8), st.integers(1, 20), SAMPLING, SEEDS, st.data())
def test_equal_classes_differ_by_at_most_one_in_every_prefix(classes, count, sampling, seed, data):
    labels = mixed_labels([count] * classes)
    taken = data.draw(st.integers(0, len(labels)))
    order = ordered(np.arange(len(labels)), labels, sampling, (seed,))
    found = np.bincount(labels[order[:taken]], minlength=classes)
    assert found.max() - found.min() <= 1


@given(COUNTS, SEEDS, st.data())
def test_balanced_prefixes_differ_only_where_a_class_is_used_up(counts, seed, data):
    labels = mixed_labels(counts)
    taken = data.draw(st.integers(0, len(labels)))
    order = ordered(np.arange(len(labels)), labels, "balanced", (seed,))
    found = np.bincount(labels[order[:taken]], minlength=len(counts))
    assert all(found.max() - n <= 1 or n == have for n, have in zip(found, counts, strict=True))


@given(st.lists(st.integers(4, 30), min_size=2, max_size=6), SAMPLING, SEEDS, SEEDS, st.data())
def test_a_split_is_disjoint_nested_and_the_same_again(counts, sampling, split_seed, seed, data):
    dataset = make_dataset(mixed_labels(counts))
    whole = split(dataset, target(sampling=sampling, split_seed=split_seed), seed)
    everyone = np.concatenate([whole.train, whole.val, whole.test])
    assert sorted(everyone) == list(range(len(dataset.labels)))
    fewer, more = sorted(
        data.draw(st.lists(st.integers(len(counts), len(whole.train)), min_size=2, max_size=2))
    )
    made = [
        split(dataset, target(sampling=sampling, split_seed=split_seed, train_labels=n), seed)
        for n in (fewer, more, more)
    ]
    assert set(made[0].train) <= set(made[1].train) <= set(whole.train)
    assert [len(s.train) for s in made] == [fewer, more, more]
    assert made[1].hash == made[2].hash
    assert set(made[0].val) <= set(whole.val)
    assert made[0].test.tolist() == whole.test.tolist()
    assert made[0].train.dtype == np.int64


def test_fractions_are_met_class_by_class():
    dataset = make_dataset(mixed_labels([100, 40, 20]))
    made = split(dataset, target(test_fraction=0.25, val_fraction=0.2), 0)
    counts = {
        part: np.bincount(dataset.labels[getattr(made, part)]).tolist() for part in ("train", "val", "test")
    }
    assert counts == {"test": [25, 10, 5], "val": [15, 6, 3], "train": [60, 24, 12]}


def test_the_seed_moves_only_the_training_images_and_the_split_seed_all():
    dataset = make_dataset(mixed_labels([50, 50]))
    first, second = (split(dataset, target(train_labels=20, val_labels=8, test_labels=10), s) for s in (0, 1))
    assert first.val.tolist() == second.val.tolist()
    assert first.test.tolist() == second.test.tolist()
    assert first.train.tolist() != second.train.tolist()
    moved = split(dataset, target(train_labels=20, split_seed=1), 0)
    assert moved.test.tolist() != first.test.tolist()


def test_limits_of_val_and_test_are_nested_and_stop_at_what_there_is():
    dataset = make_dataset(mixed_labels([50, 50]))
    small, large, all_there_is, beyond = (
        split(dataset, target(val_labels=n, test_labels=n), 0) for n in (4, 8, None, 10_000)
    )
    assert set(small.val) < set(large.val) < set(all_there_is.val)
    assert set(small.test) < set(large.test) < set(all_there_is.test)
    assert np.bincount(dataset.labels[small.test]).tolist() == [2, 2]
    assert beyond.hash == all_there_is.hash


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, []),
        ({"val_labels": 15, "test_labels": 25}, []),
        ({"test_labels": 26}, ["asked for 26 test images, 25 are left"]),
        (
            {"val_labels": 1600, "test_labels": 900},
            ["asked for 1,600 val images, 15 are left", "asked for 900 test images, 25 are left"],
        ),
        ({"test_labels": 900, "cap": 20}, []),  # the cap is what limits it
        (
            {"train_labels": 8, "val_labels": 12},
            ["asked for 12 val images, there are 8, no more than to train on"],
        ),
        ({"test_labels": 900, "cap": 30}, ["asked for 900 test images, 25 are left"]),
    ],
)
def test_it_is_said_where_there_are_fewer_images_than_asked_for(limits, said):
    dataset, asked = make_dataset(mixed_labels([50, 50])), target(val_fraction=0.2, **limits)
    assert shortfalls(split(dataset, asked, 1), asked, len(dataset.classes)) == said


@given(st.integers(2, 40), st.integers(2, 200))
def test_val_is_never_larger_than_train_and_smaller_ones_are_part_of_it(train_labels, val_labels):
    dataset = make_dataset(mixed_labels([50, 50]))
    few, all_there_are = (
        split(dataset, target(train_labels=n, val_labels=val_labels, val_fraction=0.5, test_fraction=0.2), 1)
        for n in (train_labels, None)
    )
    assert 2 <= len(few.val) <= train_labels
    assert set(few.val) <= set(all_there_are.val)


def test_no_packaged_study_asks_for_more_than_there_is():
    for path in available().values():
        study = load_study(str(path))
        if study.target.data in {*SOURCES, *MASK_SOURCES} and "/" not in study.target.data:
            dataset = load(study.target, task=study.task)
            parts = split(dataset, study.target, 1)
            assert shortfalls(parts, study.target, len(dataset.classes)) == [], path


def test_assigned_parts_are_kept():
    parts = [TRAIN] * 4 + [VAL] * 2 + [TEST] * 2
    made = split(make_dataset([0, 1] * 4, parts), target(), 0)
    assert (made.train.tolist(), made.val.tolist(), made.test.tolist()) == ([0, 1, 2, 3], [4, 5], [6, 7])


def test_val_is_cut_from_train_where_only_test_is_assigned():
    dataset = make_dataset([0, 1] * 20, [TRAIN] * 30 + [TEST] * 10)
    made = split(dataset, target(val_fraction=0.2), 0)
    assert made.test.tolist() == list(range(30, 40))
    assert len(made.val) == 6
    assert set(made.val) < set(range(30))


def test_too_many_training_labels_are_refused_with_the_number_there_is():
    with pytest.raises(
        InputError, match=r"target.train_labels: asks for 61 images, there are 60 to train on"
    ):
        split(make_dataset([0, 1] * 50), target(train_labels=61), 0)


def test_a_cap_takes_what_there_is_and_never_less_than_a_label_a_class():
    dataset = make_dataset([0, 1] * 50)
    assert len(split(dataset, target(cap=1000), 0).train) == 60
    assert len(split(dataset, target(cap=20, train_labels=50), 0).train) == 20
    assert [
        len(getattr(split(dataset, target(cap=1, test_labels=9), 0), part))
        for part in ("train", "val", "test")
    ] == [2, 2, 2]


@pytest.mark.parametrize(("part", "name"), [(TRAIN, "train"), (VAL, "val"), (TEST, "test")])
def test_a_class_that_is_missing_from_a_part_is_named(part, name):
    parts = np.array([TRAIN, VAL, TEST] * 4)
    labels = np.repeat([0, 1], 6)
    labels[parts == part] = 0
    with pytest.raises(InputError, match=f"the class 'class 1' is missing from {name}"):
        split(make_dataset(labels, parts), target(), 0)


def test_fewer_labels_than_classes_are_refused_with_the_key():
    dataset = make_dataset(mixed_labels([20] * 5))
    for key in ("train_labels", "val_labels", "test_labels"):
        with pytest.raises(InputError, match=rf"target.{key}: .*ask for at least 5"):
            split(dataset, target(**{key: 3}), 0)


def test_a_class_of_one_image_can_not_be_in_every_part():
    with pytest.raises(InputError, match="the class 'class 2' is missing from train"):
        split(make_dataset([0] * 20 + [1] * 20 + [2]), target(), 0)


def test_a_split_does_not_depend_on_the_pixels():
    dataset = make_dataset([0, 1] * 20)
    other = replace(dataset, images=dataset.images + 1)
    assert split(dataset, target(), 0).hash == split(other, target(), 0).hash


def test_the_overlap_of_training_sets_is_the_share_of_common_images():
    sets = [np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]), np.array([4, 7, 8, 9])]
    assert overlap(sets) == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert (overlap(sets[:1]), overlap([sets[0], sets[0]])) == (0.0, 1.0)
