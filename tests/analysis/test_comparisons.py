"""Which strategies differ: corrections, three answers, groups and power, by hand and by other libraries."""

import gc
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.comparisons import (
    compare_all,
    critical_value,
    group,
    letters,
    minimum_detectable_effect,
    shaffer,
)
from bench.analysis.spread import Spread
from tests.support.synthetic import comparison, crossed_of

MARGIN = 0.02
NOTHING = Spread(0.0, 0.0, 0.0, 5, 20.0)


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect():
    """Statsmodels collects garbage whenever it corrects: a tenth of a second in a process of this size."""
    gc.freeze()
    yield
    gc.unfreeze()


def arms(number, means, seeds=2, images=80, seed_sd=0.1):
    """Return correctness of strategies, below each other, and the rows of each by seed."""
    draw = np.random.default_rng(number)
    difficulty = draw.normal(0, 1, images)
    skill = np.repeat(means, seeds)[:, None] + draw.normal(0, seed_sd, (seeds * len(means), 1))
    right = skill - difficulty + draw.normal(0, 0.6, (seeds * len(means), images)) > 0
    rows = {name: {s: i * seeds + s for s in range(seeds)} for i, name in enumerate("abcdef"[: len(means)])}
    return right.astype(float), rows


class TestShaffer:
    def test_by_hand(self):
        # of four strategies at most 6 pairs are equal, then 3 (one apart: three equal), 3, 3, 2, 1
        p = [0.001, 0.011, 0.012, 0.02, 0.03, 0.04]
        assert shaffer(p, 4) == pytest.approx([0.006, 0.033, 0.036, 0.06, 0.06, 0.06])

    def test_the_published_numbers_of_true_hypotheses(self):
        """Of five treatments (Shaffer 1986): 10, 6, 6, 6, 6, 4, 4, 3, 2, 1."""
        equal = shaffer([1e-6] * 10, 5)
        assert equal == pytest.approx([1e-5] * 10)  # none may fall
        steps = shaffer([10.0 ** -(30 - place) for place in range(10)], 5)
        factors = [round(p * 10 ** (30 - place)) for place, p in enumerate(steps)]
        assert factors == [10, 6, 6, 6, 6, 4, 4, 3, 2, 1]

    def test_two_strategies_are_left_as_they_are_and_none_is_none(self):
        assert shaffer([0.04], 2) == [0.04]
        assert shaffer([], 1) == []

    @given(st.lists(st.floats(0, 1), min_size=10, max_size=10))
    def test_never_above_holm_and_never_below_the_raw_value(self, values):
        from statsmodels.stats.multitest import multipletests

        for raw, ours, holm in zip(
            values, shaffer(values, 5), multipletests(values, method="holm")[1], strict=True
        ):
            assert raw <= ours <= holm + 1e-12

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
    def test_of_some_pairs_it_is_holms(self, values):
        from statsmodels.stats.multitest import multipletests

        assert shaffer(values, 5) == pytest.approx(multipletests(values, method="holm")[1])


class TestPairs:
    def test_every_pair_once_on_the_seeds_that_both_have(self):
        correct, _ = arms(1, [1.0], seeds=5, images=40)
        rows = {"a": {1: 0, 2: 1}, "b": {2: 2, 3: 3}, "c": {3: 4}}
        pairs = compare_all(rows, crossed_of(correct), MARGIN)
        assert [(c.strategy, c.other, c.difference.seeds) for c in pairs] == [("a", "b", 1), ("b", "c", 1)]

    def test_all_pairs_are_one_family(self):
        correct, rows = arms(2, [1.0, 1.0, 1.1, 1.2])
        pairs = compare_all(rows, crossed_of(correct), MARGIN)
        assert [c.p_adjusted for c in pairs] == shaffer([c.difference.p for c in pairs], 4)

    def test_effect_is_cohens_h(self):
        # 2 arcsin(sqrt 0.75) - 2 arcsin(sqrt 0.25) = pi / 3
        crossed = crossed_of([[1, 1, 1, 0], [0, 0, 1, 0]])
        (found,) = compare_all({"a": {1: 0}, "b": {1: 1}}, crossed, MARGIN)
        assert found.effect == pytest.approx(np.pi / 3)
        assert (found.seeds_ahead, found.seeds_behind) == (1, 0)

    def test_a_clear_difference_is_better_from_one_side_and_worse_from_the_other(self):
        correct, rows = arms(3, [1.5, 0.0], seeds=5, images=200)
        (found,) = compare_all(rows, crossed_of(correct), MARGIN)
        assert (found.relation, found.reversed().relation) == ("better", "worse")
        assert found.not_worse
        assert not found.reversed().not_worse

    def test_where_lower_is_better_the_sides_change(self):
        correct, rows = arms(3, [1.5, 0.0], seeds=5, images=200)
        crossed = crossed_of(correct)
        crossed.scale = replace(crossed.scale, sign=-1)
        (found,) = compare_all(rows, crossed, MARGIN)
        assert (found.relation, found.not_worse) == ("worse", False)
        assert (found.seeds_ahead, found.seeds_behind) == (0, 5)

    def test_a_difference_that_is_shown_to_be_small_is_equivalent_even_if_there_is_one(self):
        draw = np.random.default_rng(4)
        base = (draw.random((1, 4000)) < 0.8).astype(float)
        less = base.copy()
        less[0, np.flatnonzero(base[0])[:20]] = 0  # wrong on twenty more: 0.005, and nothing else differs
        correct = np.concatenate([base, less])
        (found,) = compare_all({"a": {1: 0}, "b": {1: 1}}, crossed_of(correct), MARGIN)
        assert found.p_adjusted < 0.001
        assert found.relation == found.reversed().relation == "equivalent"
        assert found.words.startswith("is equivalent to b within 0.02 (difference +0.005 [+0.003, +0.007]")

    def test_what_is_neither_is_undecided(self):
        correct, rows = arms(5, [1.0, 1.0], images=60)
        (found,) = compare_all(rows, crossed_of(correct), MARGIN)
        assert found.relation == "undecided"
        assert found.words.startswith("is shown neither to differ from b nor to be equivalent (difference ")

    def test_few_groups_allow_no_verdict_but_an_estimate(self):
        correct, rows = arms(6, [3.0, -3.0, -3.0], images=90)
        groups = np.arange(90) % 9
        for found in compare_all(rows, crossed_of(correct, groups=groups), MARGIN):
            assert (found.relation, found.p_adjusted, found.p_equivalent) == ("undecided", None, None)
            assert (found.critical_difference, found.minimum_detectable_effect) == (None, None)
            assert ", p" not in found.words
        assert compare_all(rows, crossed_of(correct), MARGIN)[0].relation == "better"

    def test_reversed_says_the_same_from_the_other_side(self):
        one = comparison("a", "b", "better", 0.2)
        other = one.reversed()
        assert (other.strategy, other.relation, other.difference.value) == ("b", "worse", -0.2)
        assert (other.p_worse, other.p_better) == (one.p_better, one.p_worse)
        assert other.reversed() == one
        assert one.words == "is better than b by 0.200 [0.150, 0.250], p = 0.020"
        assert other.words == "is worse than a by 0.200 [0.150, 0.250], p = 0.020"

    @pytest.mark.parametrize("number", range(6))
    def test_beyond_the_critical_difference_is_shown_to_differ_and_nothing_else(self, number):
        correct, rows = arms(number, [0.0, 0.3, 0.8, 1.4])
        for c in compare_all(rows, crossed_of(correct), 1e-9):
            beyond = c.critical_difference is not None and abs(c.difference.value) > c.critical_difference
            assert beyond == (c.relation != "undecided")

    def test_a_critical_difference_has_the_p_that_decides(self):
        correct, _ = arms(3, [1.0], seeds=6)
        crossed = crossed_of(correct)
        found = crossed.difference([0, 1, 2], [3, 4, 5], MARGIN)
        assert 2 * found.spread.tail(critical_value(found, 0.0125, crossed)) == pytest.approx(0.0125)

    def test_a_critical_difference_without_spread_is_exact(self):
        crossed, alone = crossed_of(np.ones((2, 20))), crossed_of(np.ones((2, 1)))
        same = crossed.difference([0], [1], MARGIN)
        assert critical_value(same, 0.05, crossed) == pytest.approx(1 - 0.025 ** (1 / 20))
        assert critical_value(alone.difference([0], [1], MARGIN), 0.05, alone) is None
        assert minimum_detectable_effect(same, 0.05) is None


class TestPower:
    def of(self, error, degrees):
        return replace(comparison("a", "b").difference, spread=Spread(0.0, 0.0, error**2, 1, degrees))

    @pytest.mark.parametrize("degrees", [4.0, 9.0, 30.0])
    def test_what_could_be_seen_agrees_with_statsmodels(self, degrees):
        from statsmodels.stats.power import TTestPower

        size = TTestPower().solve_power(nobs=degrees + 1, alpha=0.05, power=0.8)
        found = minimum_detectable_effect(self.of(0.01, degrees), 0.05)
        assert found == pytest.approx(size * np.sqrt(degrees + 1) * 0.01, rel=1e-3)

    def test_what_is_too_small_sees_nothing(self):
        assert minimum_detectable_effect(self.of(0.2, 1.0), 0.005) is None

    def test_what_could_be_seen_is_seen_in_eight_of_ten(self):
        """Normal seeds with a true difference of the detectable size."""
        draw, count, error = np.random.default_rng(1), 6, 0.02
        size = minimum_detectable_effect(self.of(error, count - 1.0), 0.05)
        samples = draw.normal(size, error * np.sqrt(count), (20_000, count))
        assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


class TestGroups:
    def test_by_hand(self):
        # a - b - c in a row: neighbours are not shown to differ, the ends are; d differs from all
        names = ["a", "b", "c", "d"]
        apart = [comparison("a", "c", "better"), *(comparison(n, "d", "better") for n in "abc")]
        groups = group(names, [*apart, comparison("a", "b"), comparison("b", "c", "equivalent")])
        assert groups == (("a", "b"), ("b", "c"), ("d",))
        assert letters(groups) == {"a": "a", "b": "ab", "c": "b", "d": "c"}

    def test_nothing_to_compare(self):
        assert group([], []) == ()
        assert letters(group(["a"], [])) == {"a": "a"}

    @given(st.integers(1, 6), st.integers(0, 2**15))
    def test_two_share_a_letter_exactly_if_they_are_not_shown_to_differ(self, size, bits):
        names = list("abcdef"[:size])
        pairs = list(combinations(names, 2))
        apart = {pair: bool(bits >> i & 1) for i, pair in enumerate(pairs)}
        made = [comparison(*p, "better" if a else "undecided") for p, a in apart.items()]
        lettered = letters(group(names, made))
        for (one, other), differ in apart.items():
            assert bool(set(lettered[one]) & set(lettered[other])) is not differ

    def test_as_many_groups_as_the_compact_letter_display_of_another_library(self):
        display = pytest.importorskip("scikit_posthocs")
        if not hasattr(display, "compact_letter_display"):
            pytest.skip("this scikit-posthocs has no letters")
        p = pd.DataFrame(1.0, list("abcd"), list("abcd"))
        for one, other in ("ac", "ad", "bd"):
            p.loc[one, other] = p.loc[other, one] = 0.001
        theirs = display.compact_letter_display(p, alpha=0.05)
        pairs = [
            comparison(o, t, "better" if p.loc[o, t] < 0.05 else "undecided")
            for o, t in combinations("abcd", 2)
        ]
        ours = letters(group(list("abcd"), pairs))
        theirs = {name: str(text).replace(" ", "") for name, text in dict(theirs.squeeze()).items()}
        assert ours == theirs
