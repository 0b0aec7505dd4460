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


SAVED = (
    " Compared with full, the best by validation, it trains 140 times fewer parameters (24,339 instead of "
    "3,395,347) and is 30 times as fast, tuning included."
)


@pytest.mark.parametrize(
    ("relation", "opening"),
    [
        ("equivalent", "nothing measured is better by 0.02 or more."),
        ("undecided", "nothing measured is shown to be better."),
        ("better", "it is better than all else that was measured."),
    ],
)
def test_the_cheapest_that_is_not_shown_to_be_worse(relation, opening):
    found = recommend(results(relation), "full", pairs(relation))
    assert found.strategy == "feature_extractor"
    assert found.sentence == f"Use feature_extractor: {opening}{SAVED}"
    assert found.sentence == f"Use {found.strategy}: {found.reason}."


def test_what_is_shown_to_be_worse_is_not_recommended_however_cheap():
    found = recommend(results("worse"), "full", pairs("worse"))
    assert found.sentence == (
        "Use full: it is better than all else that was measured, and feature_extractor, which would be "
        "cheaper, is shown to be worse."
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
    assert "feature_extractor, which would be cheaper, is shown to be worse" in found.sentence


def test_the_best_may_be_the_cheapest():
    some = results("best", full="undecided")
    found = recommend(some, "feature_extractor", [c.reversed() for c in pairs("undecided")])
    assert found.sentence.startswith(
        "Use feature_extractor: nothing measured is shown to be better. Compared with full, it trains 140 "
    )


def test_where_nothing_is_saved_nothing_is_promised():
    some = [result("full", "best", 100, 20.0, 180.0), result("discriminative", "undecided", 100, 20.0, 181.0)]
    found = recommend(some, "full", [comparison("full", "discriminative")])
    assert found.sentence == "Use full: nothing measured is shown to be better, and nothing is cheaper."


@pytest.mark.parametrize(
    ("seconds", "words"), [(80.0, "twice as fast"), (120.0, "1.5 times as fast"), (4.0, "45 times as fast")]
)
def test_of_as_many_parameters_the_quicker(seconds, words):
    some = [
        result("full", "best", 100, 20.0, 180.0),
        result("discriminative", "undecided", 100, 1.0, seconds),
    ]
    found = recommend(some, "full", [comparison("full", "discriminative")])
    assert found.sentence == (
        "Use discriminative: nothing measured is shown to be better. Compared with full, the best by "
        f"validation, it is {words}, tuning included."
    )


def test_of_unknown_cost_comes_last():
    some = [result("full", "best", 100), result("partial", "undecided", None)]
    assert recommend(some, "full", [comparison("full", "partial")]).strategy == "full"


def test_without_a_verdict_nothing_is_recommended():
    untested = [replace(c, p_adjusted=None) for c in pairs("undecided")]
    assert recommend(results("undecided"), "full", untested) is None
    assert recommend([result("full", "best", 100)], "full", []) is None
    assert recommend([], None, []) is None
