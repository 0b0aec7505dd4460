"""Where accuracy hides the small classes, it is said what to measure instead."""

import numpy as np
import pytest

from bench.data.balance import signs_of_imbalance
from bench.data.dataset import UNASSIGNED, Dataset
from tests.support.synthetic import make_study


def made(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    classes, names = ("whole", "cracked", "dirty")[: len(counts)], tuple(map(str, range(len(labels))))
    images, parts = np.zeros((len(labels), 1, 1, 3), np.uint8), np.full(len(labels), UNASSIGNED, np.int8)
    return Dataset("made", classes, images, labels, parts, names, "")


def test_it_is_said_what_to_write_instead():
    dataset = made(50, 20, 30)
    said = signs_of_imbalance(dataset, make_study(), np.arange(100))
    assert said == (
        "50 training images show 'whole', 20 'cracked'; if every class counts alike, "
        "say metric: balanced_accuracy"
    )
    assert signs_of_imbalance(dataset, make_study(metric="balanced_accuracy"), np.arange(100)) == ""


@pytest.mark.parametrize(("counts", "uneven"), [((40, 20), False), ((41, 20), True), ((5, 0), True)])
def test_more_than_twice_as_many_is_uneven(counts, uneven):
    assert bool(signs_of_imbalance(made(*counts), make_study(), np.arange(sum(counts)))) == uneven


def test_only_the_images_that_are_trained_on_count():
    assert signs_of_imbalance(made(50, 20), make_study(), np.arange(40, 60)) == ""
