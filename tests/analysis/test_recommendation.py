"""What is recommended: the cheapest that nothing is shown to be better than, and why, in a sentence."""

from dataclasses import replace

import pytest

from bench.analysis.recommendation import recommend
from bench.analysis.results import Result
from tests.support.synthetic import comparison

NONE = Result("", "no result", "", 0, 0, 0, None, None, None, None, None, None, None, 0.0, {}, None, ())


def result(strategy, place, parameters, seconds=10.0, tuning=90.0):
    return replace(
        NONE,
        strategy=strategy,
        place=place,
        trainable_parameters=parameters,
        uncached_seconds=seconds,
        tuning_seconds=tuning,
    )


def results(frozen, full="best", scratch="worse"):
    return [
        result("scratch", scratch, 3_395_347, 30.0),
        result("feature_extractor", frozen, 24_339, 1.0, 3.0),
        result("full", full, 3_395_347),
    ]


def pairs(frozen, scratch="worse"):
    return [
        comparison("feature_extractor", "full", frozen),
        comparison("scratch", "full", scratch),
        comparison("scratch", "feature_extractor", "worse"),
    ]


@pytest.mark.parametrize(
    ("relation", "opening"),
    [
        ("equivalent", "it is equivalent to full, the best by validation,"),
        ("undecided", "it is not shown to be worse than full, the best by validation,"),
        ("better", "it is better on test than full, the best by validation,"),
    ],
)
def test_the_cheapest_that_is_not_shown_to_be_worse(relation, opening):
    found = recommend(results(relation), "full", pairs(relation))
    assert found.strategy == "feature_extractor"
    assert found.sentence == (
        f"Use feature_extractor: {opening} and trains 140 times fewer parameters "
        "(24,339 instead of 3,395,347)."
    )


def test_what_is_shown_to_be_worse_is_not_recommended_however_cheap():
    found = recommend(results("worse"), "full", pairs("worse"))
    assert found.sentence == (
        "Use full: it is the best by validation, and whatever is cheaper is shown to be worse than another."
    )


def test_worse_than_any_other_is_worse():
    """Not shown to be worse than the best by validation, but worse than what is better on test."""
    some = [*results("undecided"), result("partial", "undecided", 1_000_000)]
    found = recommend(
        some,
        "full",
        [
            *pairs("undecided"),
            comparison("partial", "full"),
            comparison("partial", "feature_extractor", "better"),
        ],
    )
    assert found.strategy == "partial"
    assert "trains 3 times fewer parameters" in found.sentence


def test_the_best_may_be_the_cheapest():
    some = results("best", full="undecided")
    found = recommend(some, "feature_extractor", [c.reversed() for c in pairs("undecided")])
    assert found.sentence == "Use feature_extractor: it is the best by validation, and nothing is cheaper."


def test_of_as_many_parameters_the_quicker():
    some = [result("full", "best", 100, 20.0, 180.0), result("discriminative", "undecided", 100, 5.0, 45.0)]
    found = recommend(some, "full", [comparison("full", "discriminative")])
    assert found.sentence == (
        "Use discriminative: it is not shown to be worse than full, the best by validation, and takes 45 s "
        "instead of 180 s, tuning included."
    )


def test_of_unknown_cost_comes_last():
    some = [result("full", "best", 100), result("partial", "undecided", None)]
    assert recommend(some, "full", [comparison("full", "partial")]).strategy == "full"


def test_without_a_verdict_nothing_is_recommended():
    untested = [replace(c, p_adjusted=None) for c in pairs("undecided")]
    assert recommend(results("undecided"), "full", untested) is None
    assert recommend([result("full", "best", 100)], "full", []) is None
    assert recommend([], None, []) is None
