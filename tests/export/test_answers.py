"""What a model says of a picture, by its probabilities: worked out by hand."""

import numpy as np
import pytest

from bench.data.dataset import NO_LABEL
from bench.export.answers import classification, multilabel, segmentation
from bench.export.answers.base import answering
from bench.study.tasks import TASKS

CLASSES = ("ant", "bee", "wasp")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_answers(task):
    assert 0 <= answering(task).THRESHOLD <= 1
    assert answering(task).SHAPE.startswith("(N, classes")


def test_the_most_probable_class_is_said_unless_it_is_too_improbable():
    probabilities = np.array([0.2, 0.7, 0.1], np.float32)
    said = classification.answer(probabilities, CLASSES, 0.0)
    assert (said.label, said.probability, said.certainty) == ("bee", pytest.approx(0.7), pytest.approx(0.7))
    assert said.details["probabilities"] == pytest.approx({"ant": 0.2, "bee": 0.7, "wasp": 0.1})
    unsure = classification.answer(probabilities, CLASSES, 0.8)
    assert (unsure.label, unsure.details["class"]) == ("", None)
    assert unsure.probability == pytest.approx(0.7)


def test_all_labels_above_the_threshold_are_said_the_most_probable_first():
    probabilities = np.array([0.6, 0.1, 0.9])
    said = multilabel.answer(probabilities, CLASSES, 0.5)
    assert (said.label, said.probability) == ("wasp; ant", "0.9000; 0.6000")
    assert said.certainty == pytest.approx(0.6), "it is least sure of ant"
    assert multilabel.answer(probabilities, CLASSES, 0.95).label == ""
    assert multilabel.answer(np.array([0.5, 0.1, 0.9]), CLASSES, 0.5).details["classes"] == ["wasp"]


def test_each_pixel_has_a_class_and_shares_are_named():
    probabilities = np.zeros((3, 2, 2))
    probabilities[0] = [[0.8, 0.8], [0.6, 0.3]]
    probabilities[1] = [[0.1, 0.1], [0.3, 0.4]]
    probabilities[2] = 1 - probabilities[:2].sum(0)
    said = segmentation.answer(probabilities, CLASSES, 0.0)
    assert said.mask.tolist() == [[0, 0], [0, 1]]
    assert said.label == "ant 75%; bee 25%"
    assert said.probability == pytest.approx((0.8 + 0.8 + 0.6 + 0.4) / 4)
    unsure = segmentation.answer(probabilities, CLASSES, 0.5)
    assert unsure.mask.tolist() == [[0, 0], [0, NO_LABEL]]
    assert unsure.label == "ant 75%; unsure 25%"
    assert segmentation.answer(probabilities, CLASSES, 0.9).label == ""
