"""Label efficiency: crossovers by hand, ends of the range, missing runs, how often intervals cover."""

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.label_efficiency import (
    Crossover,
    Efficiency,
    _crossover,
    crossing,
    efficiency,
)
from bench.analysis.predictions.base import Predictions
from bench.report.label_efficiency_report import draw_efficiency, numbers
from bench.study.metrics import ShareRight
from tests.support.synthetic import LEVEL, make_evidence, make_study

SIZES = (10, 100, 1000)
PAIR = ("full", "feature_extractor")


@pytest.mark.parametrize(
    ("differences", "labels"),
    [
        ([-1, 1, 1], 10**1.5),  # half-way on a logarithmic scale
        ([-1, 3, 1], 10**1.25),
        ([-1, 1, -1], np.inf),  # not ahead at the end
        ([1, -1, 1], 10**2.5),  # the last time it turns
        ([1, 2, 3], 0),
        ([0, 0, 0], np.inf),  # the same is not ahead
        ([-1, 0, 1], 100),
    ],
)
def test_crossing_by_hand(differences, labels):
    assert crossing(SIZES, np.array(differences, dtype=float)) == pytest.approx(labels)


def made(advantage, images=200, seeds=4, draw=0):
    """Answers at each size: full is right more often than the frozen backbone by an advantage, by size."""
    random = np.random.default_rng(draw)
    hard = random.random(images)
    skill = random.normal(0, 0.01, seeds)
    rows = {(name, seed): n * seeds + seed for n, name in enumerate(PAIR) for seed in range(seeds)}
    names = tuple(f"{n:04}" for n in range(images))
    found = {}
    for size, more in zip(SIZES, advantage, strict=True):
        level = np.concatenate([0.7 + more + skill, np.full(seeds, 0.7)])
        luck = random.normal(0, 0.1, (2 * seeds, images))
        correct = (hard + luck < level[:, None]).astype(float)
        found[size] = Predictions(rows, correct, np.array(["a", "b"] * (images // 2)), 0, images=names)
    return found


@pytest.mark.parametrize("balanced", [False, True])
def test_a_clear_crossover_is_found_with_its_interval(balanced):
    found = _crossover(made([-0.2, 0.2, 0.3]), PAIR, ShareRight(balanced), 0.0)
    assert found.outcome == "crosses"
    assert 10 < found.low <= found.labels <= found.high < 100
    assert found.labels == pytest.approx(10**1.5, rel=0.35)
    assert found.seeds == 4


def test_ends_of_the_range():
    never = _crossover(made([-0.3, -0.3, -0.2]), PAIR, ShareRight(False), 0.0)
    assert (never.outcome, never.labels, never.low, never.high) == ("none in range", None, None, None)
    always = _crossover(made([0.2, 0.2, 0.2]), PAIR, ShareRight(False), 0.0)
    assert (always.outcome, always.labels, always.low, always.high) == ("ahead throughout", None, 0, 0)
    unsure = _crossover(made([-0.2, -0.05, 0.005]), PAIR, ShareRight(False), 0.0)
    assert unsure.high is None
    assert unsure.low is not None


def test_the_same_answers_never_cross():
    found = made([0, 0, 0])
    for answers in found.values():
        answers.correct[4:] = answers.correct[:4]
    assert _crossover(found, PAIR, ShareRight(False), 0.0).outcome == "none in range"


def test_intervals_cover_the_true_crossover():
    """The truth, by a study of many images and seeds without luck in it, is at 10**1.5."""
    covered = 0
    for draw in range(120):
        found = _crossover(made([-0.04, 0.04, 0.08], draw=draw), PAIR, ShareRight(False), 0.0)
        low, high = found.low or 0, found.high or np.inf
        covered += (found.low is not None) and low <= 10**1.5 <= high
    assert covered >= 0.9 * 120


def evidence(level, **changes):
    return make_evidence(make_study(strategies=["feature_extractor", "full"]), level=LEVEL | level, **changes)


def test_a_family_of_studies():
    by_size = {300: evidence({"full": 2.5}), 30: evidence({"full": -0.5}), 100: evidence({"full": 2.4})}
    found = efficiency(by_size)
    assert found.sizes == (30, 100, 300)
    assert [point.labels for point in found.of("full")] == [30, 100, 300]
    assert all(point.test.low < point.test.value < point.test.high for point in found.points)
    (crossover,) = found.crossovers
    assert 30 < crossover.labels < 100
    assert found.words(crossover).startswith("full is ahead of feature_extractor from about ")
    assert found.as_json()["crossovers"][0]["words"] == found.words(crossover)
    assert efficiency(by_size) == found


@pytest.mark.parametrize(
    ("outcome", "labels", "high", "words"),
    [
        ("crosses", 50.0, 80.0, "full is ahead of feature_extractor from about 50 labels on [20, 80]."),
        (
            "crosses",
            50.0,
            None,
            (
                "The mean of full overtakes that of feature_extractor at about 50 labels "
                "[20, above 1,000]; up to 1,000 labels full is not shown to stay ahead."
            ),
        ),
        (
            "ahead throughout",
            None,
            None,
            (
                "The mean of full is above that of feature_extractor at every size from 10 to 1,000 labels "
                "[20, above 1,000]; up to 1,000 labels full is not shown to stay ahead."
            ),
        ),
        (
            "none in range",
            None,
            None,
            (
                "Up to 1,000 labels the mean of full does not stay above that of feature_extractor "
                "[20, above 1,000]."
            ),
        ),
    ],
)
def test_no_more_is_said_than_the_interval_shows(outcome, labels, high, words):
    found = Crossover(*PAIR, outcome, labels, 20.0, high, 3)
    assert Efficiency("s", "q", "accuracy", SIZES, (), (), (found,), ()).words(found) == words


@pytest.mark.parametrize(
    ("others", "story"),
    [
        ([], "From about 50 labels on, full is ahead of feature_extractor."),
        (
            [Crossover("partial", "feature_extractor", "crosses", 30.0, 20.0, 40.0, 3)],
            "From about 30 labels on, partial is ahead of feature_extractor.",
        ),
        (
            [Crossover("partial", "feature_extractor", "ahead throughout", None, 0.0, 0.0, 3)],
            "partial is ahead of feature_extractor at every size, from 10 labels to 1,000.",
        ),
    ],
)
def test_the_story_is_who_is_shown_to_be_ahead_first(others, story):
    known = (Crossover(*PAIR, "crosses", 50.0, 20.0, 80.0, 3), *others)
    assert Efficiency("s", "q", "accuracy", SIZES, (), (), known, ()).story == story


def test_the_story_promises_nothing_that_is_not_shown():
    open_ = (Crossover(*PAIR, "crosses", 50.0, 20.0, None, 3),)
    found = Efficiency("s", "q", "accuracy", SIZES, (), (), open_, ())
    assert found.story == "Up to 1,000 labels, nothing is shown to stay ahead of feature_extractor."


def test_leads_are_the_paired_differences_of_each_size_and_are_drawn():
    made = {300: evidence({"full": 2.5}), 30: evidence({"full": -0.5}, failed=[("full", 1)])}
    found = efficiency(made)
    assert [(lead.labels, lead.difference.seeds) for lead in found.leads] == [(30, 2), (300, 3)]
    means = {(point.strategy, point.labels): point.test.value for point in found.points}
    lead = found.leads[1].difference
    assert lead.value == pytest.approx(means["full", 300] - means["feature_extractor", 300])
    assert lead.low < lead.value < lead.high
    drawn = numbers(found).set_index(["strategy", "labels"])
    assert drawn.loc[("full", 300), "difference_low"] == lead.low
    assert drawn.loc["feature_extractor", "difference"].isna().all()
    assert found.as_json()["leads"][1]["difference"]["value"] == lead.value


def test_who_is_far_behind_does_not_set_the_scale_of_differences():
    level = {"scratch": -3.0, "full": 1.6}
    study = make_study(strategies=["scratch", "feature_extractor", "full"])
    found = efficiency({size: make_evidence(study, level=LEVEL | level, images=400) for size in (30, 300)})
    below = draw_efficiency(found).axes[1]
    assert -0.2 < below.get_ylim()[0] < 0 < below.get_ylim()[1] < 0.2
    assert [text.get_text() for text in below.texts] == ["full"]


def test_missing_and_failed_runs_are_said():
    by_size = {30: evidence({}), 100: evidence({}, failed=[("full", seed) for seed in range(3)])}
    found = efficiency(by_size)
    assert found.crossovers[0].outcome == "unknown"
    assert "nothing to compare" in found.words(found.crossovers[0])
    assert [point.test is None for point in found.of("full")] == [False, True]
    assert any(note.startswith("100 labels: full: ") and "failed" in note for note in found.notes)


def test_without_the_frozen_backbone_there_is_nothing_to_cross():
    study = make_study(strategies=["full", "partial"])
    found = efficiency({size: make_evidence(study) for size in (30, 100)})
    assert found.crossovers == ()
    assert "nothing to cross" in found.notes[-1]


def test_a_smoke_test_crosses_nothing():
    study = make_study(strategies=list(PAIR))
    by_size = {size: replace(make_evidence(study, images=20), budget="smoke") for size in SIZES}
    found = efficiency(by_size)
    assert (found.smoke, found.crossovers, found.leads) == (True, (), ())
    assert len(found.points) == len(PAIR) * len(SIZES)
