"""Seeds where they decide: what is settled stays so, and only what is open gets more of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.analysis.comparisons import compare_all
from bench.analysis.sequential import compare_in_looks, is_futile, shares, wanted_seeds
from bench.analysis.spread import Spread
from bench.analysis.summary import summarise
from bench.analysis.variance import Difference
from bench.core.errors import InputError
from bench.study.loading import load
from tests.support.synthetic import crossed_of, make_evidence, make_study


@given(st.integers(2, 50), st.integers(1, 200))
def test_looks_rise_from_min_to_max_and_share_the_whole_chance(least, more):
    looks = make_study(seeds={"min": least, "max": least + more}).looks
    assert (looks[0], looks[-1]) == (least, least + more)
    assert all(before < after <= 2 * before for before, after in pairwise(looks))
    assert sum(shares(looks)) == pytest.approx(1)
    assert min(shares(looks)) > 0


def test_a_number_of_seeds_is_looked_at_once():
    assert make_study(seeds=5).looks == (5,)
    assert shares((5,)) == (1,)


@pytest.mark.parametrize("seeds", [{"min": 5, "max": 5}, {"min": 1, "max": 5}, {"min": 5}, 0])
def test_seeds_that_can_not_be_are_refused(seeds):
    with pytest.raises(ValidationError):
        make_study(seeds=seeds)


def test_a_mistake_in_seeds_is_one_line():
    with pytest.raises(InputError, match="seeds: min 9 is not below max 3"):
        load("small_similar", ["seeds={min: 9, max: 3}"])


def rows_of(strategies, seeds):
    names = [(name, seed) for name in strategies for seed in range(1, seeds + 1)]
    rows = {}
    for row, (name, seed) in enumerate(names):
        rows.setdefault(name, {})[seed] = row
    return rows


def drawn(skills, seeds, images=300, sd=0.05, seed=0):
    """Right or wrong of each run: its strategy's share of the images, and what its seed adds."""
    draw = np.random.default_rng(seed)
    shares = [skill + draw.normal(0, sd) for skill in skills for _ in range(seeds)]
    return crossed_of(draw.random((len(shares), images)) < np.array(shares)[:, None])


@given(st.integers(0, 1000))
def test_one_look_is_the_comparison_of_all_seeds(seed):
    rows, crossed = rows_of("ab", 4), drawn([0.7, 0.75], 4, seed=seed)
    assert compare_in_looks(rows, crossed, 0.02, (4,)) == compare_all(rows, crossed, 0.02)


def test_what_is_settled_stays_so():
    """After two seeds the strategies are far apart, after eight they are not."""
    right = np.zeros((16, 200))
    right[:2, :180] = right[8:10, :20] = 1
    right[2:8, :100] = right[10:, :104] = 1
    right += np.random.default_rng(0).random(right.shape) < 0.02
    crossed, rows = crossed_of(np.minimum(right, 1)), rows_of("ab", 8)
    (found,) = compare_in_looks(rows, crossed, 0.02, (2, 4, 8))
    assert (found.relation, found.difference.seeds) == ("better", 2)
    assert compare_all(rows, crossed, 0.02)[0].relation == "undecided"


def test_equal_strategies_are_told_apart_no_more_often_than_with_one_look():
    looks, studies = (3, 6, 12), 200
    false = sum(
        compare_in_looks(rows_of("ab", 12), drawn([0.7, 0.7], 12, seed=number), 0.001, looks)[0].relation
        in {"better", "worse"}
        for number in range(studies)
    )
    assert false <= 0.05 * studies + 2 * (studies * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    ("value", "of_seeds", "of_images", "futile"),
    [
        (0.005, 1e-3, 1e-4, True),  # test images alone leave it open
        (0.05, 1e-3, 1e-5, False),  # more seeds tell them apart
        (0.001, 1e-3, 1e-6, False),  # more seeds show them to be equivalent
        (0.01, 1e-3, 5e-5, True),  # neither
    ],
)
def test_futile_is_what_the_most_seeds_would_leave_open(value, of_seeds, of_images, futile):
    spread = Spread(of_seeds, 0.0, of_images, 5, 500.0)
    difference = Difference(value, value - 0.1, value + 0.1, 0.5, 0.5, 0.5, 5, spread)
    assert is_futile(difference, 0.02, (5, 10, 500)) is futile


def evidence_of(seeds, level, *, images=400, **changes):
    """Evidence of strategies with so many seeds each, from 1 on."""
    study = make_study(strategies=list(level), seeds={"min": 3, "max": 12}, **changes)
    made = make_evidence(study.model_copy(update={"seeds": 12}), images=images, level=level)
    for name in ("runs", "trials", "curves", "predictions"):
        table = getattr(made, name)
        table = table.assign(seed=table["seed"] + 1)
        kept = table["seed"] <= table["strategy"].map(seeds)
        object.__setattr__(made, name, table[kept].reset_index(drop=True))
    object.__setattr__(made, "study", study)
    return made


class TestWantedSeeds:
    def test_at_first_all_need_the_fewest(self):
        made = evidence_of({"full": 3, "scratch": 2}, {"full": 1.5, "scratch": -0.4})
        assert wanted_seeds(made) == {"full": 3, "scratch": 3}

    def test_where_all_is_settled_none_needs_more(self):
        made = evidence_of({"full": 3, "scratch": 3}, {"full": 1.5, "scratch": -0.4})
        assert wanted_seeds(made) == {"full": 3, "scratch": 3}

    def test_only_those_go_on_that_are_not_told_from_the_best(self):
        level = {"scratch": -0.4, "feature_extractor": 1.35, "full": 1.5}
        made = evidence_of(dict.fromkeys(level, 3), level, smallest_effect=0.05)
        wanted = wanted_seeds(made)
        assert wanted == {"scratch": 3, "feature_extractor": 6, "full": 6}
        more = evidence_of({"scratch": 3, "feature_extractor": 5, "full": 6}, level, smallest_effect=0.05)
        assert wanted_seeds(more) == wanted, "a look waits until all is there"

    def test_what_was_not_wanted_is_not_missing(self):
        level = {"scratch": -0.4, "full": 1.5}
        made = evidence_of(dict.fromkeys(level, 3), level)
        object.__setattr__(made, "wanted", wanted_seeds(made))
        assert made.lacking == []
        assert [result.missing for result in summarise(made).results] == [0, 0]
