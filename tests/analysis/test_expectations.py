"""What a study expects beforehand, and what becomes of it."""

from dataclasses import replace

import pytest

from bench.analysis.expectations import judge_expected
from bench.analysis.variance import Estimate
from bench.study.schema import Expected
from tests.analysis.test_recommendation import result
from tests.support.synthetic import comparison


def judged(expected, results=(), pairs=None):
    (found,) = judge_expected([Expected(source="Someone 2019", **expected)], results, pairs or {}, "accuracy")
    assert found.source == "Someone 2019"
    return found


@pytest.mark.parametrize(
    ("relation", "outcome"),
    [
        ("better", "as expected"),
        ("equivalent", "not as expected"),
        ("worse", "not as expected"),
        ("undecided", "open"),
    ],
)
def test_that_one_is_better(relation, outcome):
    found = comparison("full", "scratch", relation)
    said = judged({"strategy": "full", "over": "scratch"}, pairs={("full", "scratch"): found})
    assert said.outcome == outcome
    assert said.sentence == f"full {found.words}; expected to be better: full."


def test_what_was_not_compared_is_open():
    said = judged({"strategy": "full", "over": "scratch"})
    assert (said.outcome, said.sentence) == (
        "open",
        "full and scratch could not be compared; expected to be better: full.",
    )


@pytest.mark.parametrize(
    ("value", "half", "outcome"),
    [
        (0.915, 0.001, "as expected"),
        (0.905, 0.05, "as expected"),
        (0.93, 0.02, "open"),
        (0.93, 0.004, "not as expected"),
        (0.90, 0.004, "not as expected"),
    ],
)
def test_a_value(value, half, outcome):
    reached = replace(
        result("linear_probe", "best", 1), test=Estimate(value, value - half, value + half, 5, 0.5)
    )
    said = judged({"strategy": "linear_probe", "value": 0.915, "within": 0.01}, [reached])
    assert said.outcome == outcome
    assert said.sentence.startswith(f"linear_probe has test accuracy {value:.4f} [")
    assert said.sentence.endswith("; expected: 0.915 ± 0.01.")


def test_a_value_without_a_result_is_open():
    said = judged({"strategy": "linear_probe", "value": 0.915, "within": 0.01})
    assert (said.outcome, said.sentence) == ("open", "linear_probe has no result; expected: 0.915 ± 0.01.")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"over": "scratch", "value": 0.9, "within": 0.1},
        {"value": 0.9},
        {"within": 0.1},
        {"over": "scratch", "within": 0.1},
    ],
)
def test_one_thing_is_said(wrong):
    with pytest.raises(ValueError, match="say either which strategy it is over, or a value"):
        Expected(strategy="full", source="Someone 2019", **wrong)
