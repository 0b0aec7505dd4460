"""The statistics: answers by hand, other derivations of the same number, simulations with a known truth."""

import gc
import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.comparisons import (
    Comparison,
    compare_all,
    critical_value,
    group,
    holm,
    letters,
    minimum_detectable_effect,
)
from bench.analysis.errors_by_class import confused, confusion
from bench.analysis.evidence import Evidence, canonical
from bench.analysis.predictions.base import read
from bench.analysis.ranking import critical_difference, rank
from bench.analysis.rules_of_thumb import ADVICE, judge
from bench.analysis.summary import Summary, summarise
from bench.analysis.variance import Crossed, Difference, Variance
from bench.study.schema import Scenario, Study
from tests.support.synthetic import LEVEL, make_evidence, make_study


def crossed(correct, strata=None, draws=4000):
    correct = np.asarray(correct, dtype=float)
    return Crossed(correct, np.zeros(correct.shape[1], int) if strata is None else np.asarray(strata), draws)


def answer_at_random(draw, seeds, difficulty, *, mean=1.0, seed_sd=0.1):
    """Return correctness (seeds, images), and its mean over all that might have been drawn."""
    skill = mean + draw.normal(0, seed_sd, (seeds, 1))
    right = skill - difficulty + draw.normal(0, 0.6, (seeds, len(difficulty))) > 0
    return right.astype(float), stats.norm.cdf(mean / np.sqrt(seed_sd**2 + 1 + 0.6**2))


def answers_of(number, seeds, images, **changes):
    draw = np.random.default_rng(number)
    return answer_at_random(draw, seeds, draw.normal(0, 1, images), **changes)[0]


def comparison(strategy, other, place="tied", value=0.0, margin=0.1):
    found = Difference(value, value - 0.05, value + 0.05, 0.2, 3, 0.02, 4.0)
    return Comparison(strategy, other, place, found, 0.2, 0.0, 1, 2, margin, 0.2)


def compared(places):
    best = next((name for name, place in places.items() if place == "best"), "none")
    return {n: comparison(n, best, p) for n, p in places.items() if p in {"tied", "behind", "ahead"}}


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect():
    """Statsmodels collects garbage whenever it corrects: a tenth of a second in a process of this size."""
    gc.freeze()
    yield
    gc.unfreeze()


class TestHolm:
    def test_by_hand(self):
        # 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none may fall
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_one_is_left_as_it_is_and_none_is_none(self):
        assert holm([0.04]) == [0.04]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_between_the_raw_value_and_bonferroni(self, values):
        for raw, adjusted in zip(values, holm(values), strict=True):
            assert raw <= adjusted <= min(1.0, raw * len(values))

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_keeps_the_order(self, values):
        ranked = [adjusted for _, adjusted in sorted(zip(values, holm(values), strict=True))]
        assert ranked == sorted(ranked)


class TestPairs:
    def test_every_pair_once_on_the_seeds_that_both_have(self):
        rows = {"a": {1: 0, 2: 1}, "b": {2: 2, 3: 3}, "c": {3: 4}}
        pairs = compare_all(rows, crossed(answers_of(1, 5, 40)), "b")
        assert [(c.strategy, c.other, c.difference.seeds) for c in pairs] == [("a", "b", 1), ("b", "c", 1)]

    def test_pairs_with_the_best_are_a_family_and_the_others_another(self):
        found = crossed(answers_of(2, 8, 60, seed_sd=0.5))
        rows = {name: {1: 2 * i, 2: 2 * i + 1} for i, name in enumerate("abcd")}
        pairs = {(c.strategy, c.other): c for c in compare_all(rows, found, "a")}
        for family in (("ab", "ac", "ad"), ("bc", "bd", "cd")):
            members = [pairs[tuple(pair)] for pair in family]
            assert [c.p_holm for c in members] == holm([c.difference.p for c in members])

    def test_effect_is_cohens_h(self):
        # 2 arcsin(sqrt 0.75) - 2 arcsin(sqrt 0.25) = pi / 3
        (found,) = compare_all({"a": {1: 0}, "b": {1: 1}}, crossed([[1, 1, 1, 0], [0, 0, 1, 0]]), "a")
        assert found.effect == pytest.approx(np.pi / 3)
        assert (found.seeds_ahead, found.seeds_behind) == (1, 0)

    def test_reversed_says_the_same_from_the_other_side(self):
        one = comparison("a", "b", "ahead", 0.2)
        other = one.reversed()
        assert (other.strategy, other.place, other.difference.value) == ("b", "behind", -0.2)
        assert other.reversed() == one
        assert one.words == "is ahead of b by 0.200 [0.150, 0.250], p = 0.200"
        assert other.words == "is behind a by 0.200 [0.150, 0.250], p = 0.200"

    def test_a_difference_of_the_margin_has_the_p_that_decides(self):
        found = crossed(answers_of(3, 6, 80)).difference([0, 1, 2], [3, 4, 5])
        at = critical_value(found, 0.05 / 4, 80)
        assert 2 * stats.t.sf(at / found.error, found.degrees) == pytest.approx(0.05 / 4)

    @pytest.mark.parametrize("number", range(6))
    def test_who_is_behind_by_the_margin_is_told_apart_and_no_one_else(self, number):
        draw = np.random.default_rng(number)
        difficulty = draw.normal(0, 1, 80)
        arms = [answer_at_random(draw, 2, difficulty, mean=mean)[0] for mean in (0.0, 0.3, 0.8, 1.4)]
        rows = {name: {1: 2 * i, 2: 2 * i + 1} for i, name in enumerate("abcd")}
        for c in compare_all(rows, crossed(np.concatenate(arms)), "d"):
            beyond = c.critical_difference is not None and abs(c.difference.value) > c.critical_difference
            assert beyond == (c.place != "tied")

    def test_margin_without_spread_is_exact(self):
        same = crossed(np.ones((2, 20))).difference([0], [1])
        assert critical_value(same, 0.05, 20) == pytest.approx(1 - 0.025 ** (1 / 20))
        assert critical_value(same, 0.05, 1) is None
        assert minimum_detectable_effect(same, 0.05) is None

    @pytest.mark.parametrize("degrees", [4.0, 9.0, 30.0])
    def test_what_could_be_seen_agrees_with_statsmodels(self, degrees):
        from statsmodels.stats.power import TTestPower

        size = TTestPower().solve_power(nobs=degrees + 1, alpha=0.05, power=0.8)
        found = Difference(0, 0, 0, 1, 5, 0.01, degrees)
        assert minimum_detectable_effect(found, 0.05) == pytest.approx(
            size * np.sqrt(degrees + 1) * 0.01, rel=1e-4
        )

    def test_what_is_too_small_sees_nothing(self):
        assert minimum_detectable_effect(Difference(0, 0, 0, 1, 2, 0.2, 1.0), 0.005) is None

    def test_what_could_be_seen_is_seen_in_eight_of_ten(self):
        """Normal seeds with a true difference of the detectable size."""
        draw, count, error = np.random.default_rng(1), 6, 0.02
        size = minimum_detectable_effect(Difference(0, 0, 0, 1, count, error, count - 1.0), 0.05)
        samples = draw.normal(size, error * np.sqrt(count), (20_000, count))
        assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


class TestGroups:
    def test_by_hand(self):
        # a - b - c in a row: neighbours can't be told apart, the ends can; d is apart from all
        names = ["a", "b", "c", "d"]
        apart = [comparison("a", "c", "ahead"), *(comparison(n, "d", "ahead") for n in "abc")]
        groups = group(names, [*apart, comparison("a", "b"), comparison("b", "c")])
        assert groups == (("a", "b"), ("b", "c"), ("d",))
        assert letters(groups) == {"a": "a", "b": "ab", "c": "b", "d": "c"}

    def test_nothing_to_compare(self):
        assert group([], []) == ()
        assert letters(group(["a"], [])) == {"a": "a"}

    @given(st.integers(1, 6), st.integers(0, 2**15))
    def test_two_share_a_letter_exactly_if_they_cannot_be_told_apart(self, size, bits):
        names = list("abcdef"[:size])
        pairs = list(combinations(names, 2))
        apart = {pair: bool(bits >> i & 1) for i, pair in enumerate(pairs)}
        lettered = letters(group(names, [comparison(*p, "ahead" if a else "tied") for p, a in apart.items()]))
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
            comparison(o, t, "ahead" if p.loc[o, t] < 0.05 else "tied") for o, t in combinations("abcd", 2)
        ]
        ours = letters(group(list("abcd"), pairs))
        theirs = {name: str(text).replace(" ", "") for name, text in dict(theirs.squeeze()).items()}
        assert ours == theirs


class TestVariance:
    def test_parts_agree_with_the_analysis_of_variance(self):
        correct = answers_of(1, 4, 60, seed_sd=0.4)
        by_seed, by_image = correct.mean(axis=1), correct.mean(axis=0)
        rest = correct - by_seed[:, None] - by_image + correct.mean()
        bootstrap = crossed(correct, draws=40_000)
        found = bootstrap._variance(bootstrap.values, bootstrap._resampled)
        assert found.seeds == pytest.approx(by_seed.var(ddof=1) / 4, rel=0.03)
        assert found.images == pytest.approx(by_image.var(ddof=1) / 60, rel=0.03)
        assert found.interaction == pytest.approx((rest**2).sum() / (3 * 59) / (4 * 60), rel=0.03)

    def test_images_are_resampled_within_classes(self):
        correct = np.random.default_rng(2).random((1, 50)) < 0.7
        strata = np.repeat([0, 1], [10, 40])
        bootstrap = crossed(correct, strata, draws=40_000)
        parts = [correct[0, strata == c].var(ddof=1) / (strata == c).sum() for c in (0, 1)]
        found = bootstrap._variance(bootstrap.values, bootstrap._resampled)
        assert found.images == pytest.approx(sum(parts) / 4, rel=0.03)

    def test_satterthwaite_by_hand(self):
        # total 3 + 1 - 0 = 4; 16 / (9/4 + 1/10) = 6.809
        assert Variance(3.0, 1.0, 0.0, 5, 11).degrees == pytest.approx(16 / (9 / 4 + 1 / 10))

    def test_total_is_never_below_a_part(self):
        assert Variance(1.0, 2.0, 5.0, 3, 3).total == 2.0

    def test_one_seed_and_no_variance(self):
        assert Variance(0.0, 0.02, 0.0, 1, 21).degrees == pytest.approx(20)
        assert Variance(0.0, 0.0, 0.0, 5, 20).degrees == float("inf")


class TestEstimate:
    def test_balanced_accuracy_is_the_mean_of_recalls(self):
        correct = [[1, 0, 0, 0, 1, 1]]
        assert crossed(correct, [0, 0, 0, 0, 1, 1]).estimate([0]).value == pytest.approx((0.25 + 1) / 2)
        assert crossed(correct).estimate([0]).value == pytest.approx(0.5)

    @pytest.mark.parametrize(("right", "images"), [(1, 30), (0, 30), (1, 1)])
    def test_all_right_or_all_wrong_is_wilsons_interval(self, right, images):
        found = crossed(np.full((5, images), right)).estimate(range(5))
        interval = stats.binomtest(right * images, images).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))

    def test_one_seed_is_wilsons_interval_with_t(self):
        correct = np.repeat([[1, 0]], [300, 100], axis=1)
        found = crossed(correct, draws=40_000).estimate([0])
        interval = stats.binomtest(300, 400).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.002)
        assert (found.seeds, found.seed_share) == (1, 0.0)

    def test_few_seeds_that_differ_widen_the_interval(self):
        images = np.arange(200)
        alike = np.tile(images < 150, (5, 1))
        differ = np.stack([images < edge for edge in (110, 130, 150, 170, 190)])
        narrow, wide = (crossed(c).estimate(range(5)) for c in (alike, differ))
        assert wide.value == narrow.value == 0.75
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
        assert narrow.seed_share == 0
        assert wide.seed_share > 0.5

    def test_the_same_seed_gives_the_same_numbers(self):
        correct = answers_of(3, 3, 40)
        assert crossed(correct).estimate([0, 1, 2]) == crossed(correct).estimate([0, 1, 2])

    def test_blocks_of_memory_do_not_move_the_interval(self, monkeypatch):
        correct = answers_of(3, 3, 40)
        whole = crossed(correct).estimate([0, 1, 2])
        monkeypatch.setattr("bench.analysis.variance.BLOCK", 999)
        assert crossed(correct).estimate([0, 1, 2]) == whole

    @given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))
    def test_always_inside_zero_and_one_around_the_mean(self, seeds, images, number):
        draw = np.random.default_rng(number)
        correct = draw.random((seeds, images)) < draw.random()
        found = crossed(correct, draw.integers(0, 3, images), draws=50).estimate(range(seeds))
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1

    @pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.3])
    def test_covers_the_truth_as_often_as_it_says(self, seed_sd):
        draw, hits = np.random.default_rng(4), []
        for _ in range(400):
            correct, truth = answer_at_random(draw, 5, draw.normal(0, 1, 200), seed_sd=seed_sd)
            found = crossed(correct, draws=300).estimate(range(5))
            hits.append(found.low <= truth <= found.high)
        assert 0.92 <= np.mean(hits) <= 0.98  # 400 of 0.95: standard error 0.011


class TestDifference:
    def test_one_seed_is_the_paired_t_test_over_images(self):
        draw = np.random.default_rng(5)
        first, second = draw.random(80) < 0.8, draw.random(80) < 0.7
        found = crossed([first, second], draws=40_000).difference([0], [1])
        test = stats.ttest_rel(first.astype(float), second.astype(float))
        interval = test.confidence_interval()
        assert found.p == pytest.approx(test.pvalue, rel=0.1)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.005)

    def test_only_seeds_differing_is_the_paired_t_test_over_seeds(self):
        # each run is right on all of both images or on none, so only seeds vary
        scores, others = np.array([1, 1, 1, 1, 0]), np.array([0, 0, 1, 0, 0])
        found = crossed(np.repeat([*scores, *others], 2).reshape(10, 2), draws=40_000).difference(
            range(5), range(5, 10)
        )
        assert found.value == pytest.approx(0.6)
        assert found.p == pytest.approx(stats.ttest_rel(scores, others).pvalue, rel=0.05)

    def test_swapping_sides_swaps_the_sign_only(self):
        correct = answers_of(6, 6, 50)
        bootstrap = crossed(correct)
        one, other = bootstrap.difference([0, 1, 2], [3, 4, 5]), bootstrap.difference([3, 4, 5], [0, 1, 2])
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
        assert one.p == pytest.approx(other.p)

    def test_equal_answers_are_not_different(self):
        found = crossed(np.tile(np.arange(20) < 15, (4, 1))).difference([0, 1], [2, 3])
        assert (found.value, found.p) == (0, 1)
        # no image out of 20 differs: the rule of three's exact form leaves up to 1 - 0.025^(1/20) = 0.168
        assert (found.low, found.high) == pytest.approx((-0.168, 0.168), abs=0.001)

    def test_right_on_all_against_wrong_on_all_is_the_sign_test(self):
        found = crossed([[1] * 6, [0] * 6]).difference([0], [1])
        assert found.value == 1
        assert found.p == pytest.approx(stats.binomtest(6, 6).pvalue)

    def test_one_image_decides_nothing(self):
        found = crossed([[1], [1], [0], [0]]).difference([0, 1], [2, 3])
        assert (found.low, found.high, found.p) == (-1, 1, 1)

    def test_false_alarms_of_the_family_stay_under_five_percent(self):
        draw, alarms = np.random.default_rng(7), 0
        for _ in range(300):
            difficulty = draw.normal(0, 1, 150)
            arms = [answer_at_random(draw, 5, difficulty)[0] for _ in range(4)]
            bootstrap = crossed(np.concatenate(arms), draws=300)
            rows = [range(5 * arm, 5 * arm + 5) for arm in range(4)]
            alarms += min(holm([bootstrap.difference(rows[arm], rows[0]).p for arm in (1, 2, 3)])) < 0.05
        assert alarms / 300 <= 0.05

    def test_a_real_difference_is_found(self):
        draw, found = np.random.default_rng(8), 0
        for _ in range(50):
            difficulty = draw.normal(0, 1, 300)
            better, _ = answer_at_random(draw, 5, difficulty, mean=1.5)
            worse, _ = answer_at_random(draw, 5, difficulty, mean=1.0)
            found += (
                crossed(np.concatenate([better, worse]), draws=300).difference(range(5), range(5, 10)).p
                < 0.05
            )
        assert found >= 45


class TestEvidence:
    def test_rows_are_sorted_and_absent_columns_added(self):
        made = make_evidence()
        shuffled = replace(
            made, runs=made.runs.sample(frac=1, random_state=0).drop(columns="peak_memory_bytes")
        )
        pd.testing.assert_frame_equal(shuffled.runs, made.runs, check_dtype=False)

    def test_order_is_ours_first_then_by_name(self):
        assert canonical(["zeta", "full", "alpha", "scratch", "full"]) == ["scratch", "full", "alpha", "zeta"]

    def test_answers_keep_the_images_that_every_run_has(self):
        made = make_evidence(images=20)
        short = made.predictions[
            ~((made.predictions["seed"] == 1) & (made.predictions["image"] == "0003.png"))
        ]
        found = read(replace(made, predictions=short))
        assert found.correct.shape == (15, 19)
        assert found.dropped == 1

    def test_an_image_named_twice_is_refused(self):
        made = make_evidence(images=5)
        with pytest.raises(ValueError, match="duplicate"):
            read(replace(made, predictions=pd.concat([made.predictions, made.predictions.iloc[:1]])))


class TestSummary:
    def test_means_agree_with_the_runs_own_metrics(self):
        for metric in ("accuracy", "balanced_accuracy"):
            summary = summarise(make_evidence(make_study(metric=metric)), draws=200)
            for result in summary.results:
                assert result.test.value == pytest.approx(result.test_mean)

    def test_is_json_and_repeatable(self):
        first, second = (summarise(make_evidence(), draws=200) for _ in range(2))
        assert json.dumps(first.as_json(), allow_nan=False) == json.dumps(second.as_json(), allow_nan=False)

    def test_comes_back_from_json(self):
        summary = summarise(make_evidence(), draws=200)
        assert Summary.from_json({"version": 1, **json.loads(json.dumps(summary.as_json()))}) == summary

    def test_best_is_chosen_by_validation_not_by_test(self):
        made = make_evidence()
        runs = made.runs.copy()
        runs.loc[runs["strategy"] == "scratch", "val_accuracy"] = 0.99
        summary = summarise(replace(made, runs=runs), draws=500)
        assert summary.best == "scratch"
        assert summary.result("full").place == "ahead"
        assert (
            "On test it is beaten by feature_extractor, partial, full and discriminative." in summary.verdict
        )

    def test_what_is_far_behind_and_what_is_level(self):
        level = LEVEL | {"feature_extractor": -1.0, "partial": 1.5}
        summary = summarise(make_evidence(make_study(seeds=5), images=300, level=level))
        assert summary.best in {"partial", "full", "discriminative"}
        assert set(summary.level) == {"partial", "full", "discriminative"}
        assert summary.result("scratch").place == summary.result("feature_extractor").place == "behind"
        assert summary.ruling.outcome == "refuted"
        assert f"feature_extractor is behind {summary.best} by 0." in summary.ruling.sentence

    @pytest.mark.parametrize(
        ("groups", "words"),
        [
            ([("full", "partial")], "Groups whose members can't be told apart: full, partial."),
            ([("full",), ("scratch",)], "Told apart from all others: full, scratch."),
            (
                [("full", "partial"), ("partial", "discriminative"), ("scratch",)],
                (
                    "Groups whose members can't be told apart: full, partial; partial, discriminative. "
                    "Told apart from all others: scratch."
                ),
            ),
            ([], ""),
        ],
    )
    def test_groups_in_words(self, groups, words):
        summary = summarise(make_evidence(), draws=200)
        assert replace(summary, groups=tuple(groups)).groups_in_words == words

    def test_costs_are_sums_of_trials_and_means_of_runs(self):
        result = summarise(make_evidence(), draws=200).result("full")
        assert result.tuning_seconds == 8 * (22 + 1)
        assert result.train_seconds == pytest.approx(23)  # 22, 23, 24
        assert result.trials == {"done": 6, "pruned": 2, "failed": 0}

    def test_tuning_costs_the_same_whatever_was_stored_before(self):
        made = make_evidence(make_study(tuning={"trials": 4}), images=20)
        costs = {"cached_seconds": [1.0, 1.0, 2.0, np.nan], "feature_seconds": [5.0, 5.0, 3.0, 0.0]}
        for stored in ([6.0, 1.0, 5.0, 7.0], [1.0, 1.0, 2.0, 7.0]):  # features computed, or found
            own = costs | {"train_seconds": stored, "eval_seconds": 0.5}
            trials = made.trials.assign(**{k: np.resize(v, len(made.trials)) for k, v in own.items()})
            result = summarise(replace(made, trials=trials), draws=50).result("partial")
            assert result.tuning_seconds == (1 + 1 + 2 + 7.5) + (5 + 3)

    def test_failures_are_counted_and_never_imputed(self):
        made = make_evidence(failed=[("full", 0), ("scratch", 0), ("scratch", 1), ("scratch", 2)])
        summary = summarise(made, draws=200)
        full, scratch = summary.result("full"), summary.result("scratch")
        assert (full.done, full.failed, full.test.seeds) == (2, 1, 2)
        assert full.test_mean == pytest.approx(made.done.query("strategy == 'full'")["test_accuracy"].mean())
        assert (scratch.place, scratch.test, scratch.test_mean) == ("no result", None, None)
        assert "scratch: of 3 final runs 3 failed (loss is NaN at epoch 3)." in summary.notes
        assert all(comparison.strategy != "scratch" for comparison in summary.comparisons)

    def test_pairs_use_common_seeds_only(self):
        summary = summarise(make_evidence(failed=[("full", 0), ("partial", 1)]), draws=200)
        seeds = {c.strategy: c.difference.seeds for c in summary.comparisons} | {summary.best: None}
        expected = {"full": {"full": None, "partial": 1}, "partial": {"full": 1, "partial": None}}
        for name, count in expected.get(summary.best, {"full": 2, "partial": 2}).items():
            assert seeds[name] == count

    def test_one_seed_is_said_to_be_one(self):
        summary = summarise(make_evidence(make_study(seeds=1)), draws=200)
        assert any("single seed" in note for note in summary.notes)

    def test_near_duplicates_of_training_images_are_said_and_what_they_are_worth(self):
        made = make_evidence()
        best = summarise(made, draws=50).best
        mine = made.predictions[made.predictions["strategy"] == best]
        always = mine[mine["target"] == mine["prediction"]].groupby("image").size()
        near = list(always.index[always == made.study.seeds][:10])
        facts = {"near-duplicates across parts": "10 of 120 test images have a near-duplicate in train"}
        made = replace(
            made,
            near_duplicates=tuple((name, "test", "other", "train") for name in near),
            provenance=made.provenance | facts,
        )
        other = mine[~mine["image"].isin(near)]
        without, with_them = ((part["target"] == part["prediction"]).mean() for part in (other, mine))
        (note,) = (note for note in summarise(made, draws=50).notes if note.startswith("Near"))
        expected = f"On the other test images {best} has {without:.3f} instead of {with_them:.3f}."
        assert note == f"Near-duplicates: {facts['near-duplicates across parts']}. {expected}"

    @pytest.mark.parametrize(
        ("said", "notes"),
        [("none are given, but x", ["Groups: none are given, but x."]), ({"kind": "module"}, [])],
    )
    def test_what_looks_like_groups_is_a_note(self, said, notes):
        made = replace(make_evidence(), provenance={"groups": said})
        assert [note for note in summarise(made, draws=50).notes if note.startswith("Groups")] == notes

    def test_one_strategy_is_best_of_nothing(self):
        summary = summarise(make_evidence(make_study(strategies=["feature_extractor"])), draws=200)
        assert (summary.best, summary.comparisons) == ("feature_extractor", ())
        assert summary.ruling.outcome == "not decided"
        assert "nothing else to compare it with" in summary.ruling.sentence

    def test_identical_strategies_are_level(self):
        made = make_evidence(make_study(strategies=["full", "discriminative"]))
        one = made.predictions[made.predictions["strategy"] == "full"]
        same = replace(made, predictions=pd.concat([one, one.assign(strategy="discriminative")]))
        assert summarise(same, draws=200).level == ("full", "discriminative")

    def test_nothing_stored_is_said(self):
        empty = Evidence(make_study(), *(pd.DataFrame() for _ in range(4)))
        summary = summarise(empty)
        assert summary.verdict == "No final run is done, so there is nothing to compare."
        assert summary.ruling.outcome == "not tested"
        assert "full: of 3 final runs 3 not run." in summary.notes

    def test_all_failed_is_said(self):
        every = [(name, seed) for name in LEVEL for seed in range(3)]
        summary = summarise(make_evidence(failed=every))
        assert (summary.best, summary.images, summary.classes) == (None, 0, ())

    def test_runs_without_predictions_are_named(self):
        made = make_evidence()
        lost = made.predictions[(made.predictions["strategy"] != "full") | (made.predictions["seed"] != 2)]
        summary = summarise(replace(made, predictions=lost), draws=200)
        assert any(note.endswith("comparisons: full seed 2.") for note in summary.notes)
        assert summary.result("full").test.seeds == 2

    def test_recall_by_class_averages_to_balanced_accuracy(self):
        summary = summarise(
            make_evidence(make_study(metric="balanced_accuracy"), classes=("a", "b", "c")), draws=200
        )
        for name in LEVEL:
            mean = np.mean([found.recall[name] for found in summary.classes])
            assert mean == pytest.approx(summary.result(name).test_mean)


class TestRanks:
    def summaries(self, *scores, names=("full", "partial", "scratch")):
        made = [
            summarise(make_evidence(make_study(name=f"s{i}"), images=20), draws=50)
            for i in range(len(scores))
        ]
        return [
            replace(
                s, results=tuple(replace(s.result(n), test_mean=v) for n, v in zip(names, row, strict=True))
            )
            for s, row in zip(made, scores, strict=True)
        ]

    def test_mean_ranks_by_hand_with_ties_shared(self):
        found = rank(self.summaries((0.9, 0.8, 0.7), (0.9, 0.9, 0.1), (0.5, 0.6, 0.4)))
        assert found.mean == pytest.approx({"full": (1 + 1.5 + 2) / 3, "partial": 4.5 / 3, "scratch": 3})
        assert found.apart == []

    def test_where_lower_is_better_the_lowest_is_first(self, error_rate):
        made = self.summaries((0.1, 0.2, 0.3), (0.1, 0.1, 0.9), (0.5, 0.4, 0.6))
        found = rank([replace(summary, metric=error_rate.name) for summary in made])
        assert found.mean == pytest.approx({"full": 1.5, "partial": 1.5, "scratch": 3})

    def test_friedmans_p_is_scipys(self):
        scores = [(0.9, 0.8, 0.7), (0.9, 0.85, 0.1), (0.5, 0.6, 0.4), (0.9, 0.5, 0.3)]
        found = rank(self.summaries(*scores))
        assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*zip(*scores, strict=True)).pvalue)

    def test_studies_on_the_same_data_are_one_data_set(self):
        scores = [(0.9, 0.8, 0.7), (0.7, 0.8, 0.4), (0.5, 0.6, 0.4)]
        made = [
            replace(s, data_digest=d)
            for s, d in zip(self.summaries(*scores), ("same", "same", "other"), strict=True)
        ]
        found = rank(made)
        assert found.scores.to_numpy().tolist() == [pytest.approx([0.8, 0.8, 0.55]), [0.5, 0.6, 0.4]]
        assert found.scores.index.tolist() == ["s0, s1", "s2"]
        assert (found.studies, found.difference) == (3, critical_difference(3, 2))
        assert found.mean == pytest.approx({"full": 1.75, "partial": 1.25, "scratch": 3})
        assert rank(made[:2]) is None

    def test_the_data_of_a_study_are_those_of_its_evidence(self):
        made = make_evidence(images=20)
        made.provenance["data digest"] = "abc"
        assert summarise(made, draws=50).data_digest == "abc"

    def test_pairs_are_apart_only_if_not_all_are_alike(self, monkeypatch):
        import scikit_posthocs

        monkeypatch.setattr(scikit_posthocs, "posthoc_nemenyi_friedman", lambda _: np.full((3, 3), 0.01))
        agree = rank(self.summaries(*[(0.9, 0.8, 0.7)] * 5))
        differ = rank(self.summaries((0.9, 0.8, 0.7), (0.7, 0.8, 0.9)))
        assert agree.differ
        assert len(agree.apart) == 3
        assert not differ.differ
        assert differ.apart == []

    def test_a_summary_of_before_its_data_were_known_is_read(self):
        summary = self.summaries((0.9, 0.8, 0.7))[0]
        values = summary.as_json()
        del values["data_digest"]
        assert Summary.from_json(values).data_digest == ""

    def test_critical_difference_is_that_of_the_paper(self):
        """Demsar 2006, section 3.2.2: four classifiers on 14 data sets: 2.569 sqrt(4 5 / (6 14)) = 1.25."""
        assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)

    def test_too_few_to_rank(self):
        assert rank(self.summaries((0.9, 0.8, 0.7))) is None
        assert rank(self.summaries((0.9, None, 0.7), (0.9, 0.8, 0.7))) is None

    def test_equal_scores_share_their_rank(self):
        found = rank(self.summaries((0.9, 0.9, 0.9), (0.8, 0.8, 0.8)))
        assert (set(found.mean.values()), found.friedman_p, found.apart) == ({2.0}, 1.0, [])


class TestMistakes:
    def test_confused_pairs_by_hand(self):
        made = make_evidence(make_study(strategies=["full"], seeds=1), images=4)
        answered = made.predictions.assign(target=["a", "a", "b", "c"], prediction=["b", "a", "b", "b"])
        summary = summarise(replace(made, predictions=answered), draws=50)
        found = [(c.target, c.prediction, c.predictions, c.share, c.examples) for c in summary.confused]
        assert found == [("a", "b", 1, 0.5, ("0000.png",)), ("c", "b", 1, 1.0, ("0003.png",))]
        counts = confusion(replace(made, predictions=answered), "full")
        assert counts.to_numpy().tolist() == [["a", "a", 1], ["a", "b", 1], ["b", "b", 1], ["c", "b", 1]]

    def test_examples_are_those_that_most_seeds_mistake_of_the_pictures_at_hand(self):
        made = make_evidence(make_study(strategies=["full"], seeds=3), images=3)
        answered = made.predictions.assign(target="a", prediction="a")
        mistaken = {("0000.png", 0), ("0001.png", 0), ("0001.png", 1), ("0001.png", 2), ("0002.png", 0)}
        mistaken |= {("0002.png", 1)}
        pairs = list(zip(answered["image"], answered["seed"], strict=True))
        answered.loc[[pair in mistaken for pair in pairs], "prediction"] = "b"
        for kept, examples in (
            ((), ("0001.png", "0002.png", "0000.png")),
            (("0000.png", "0002.png"), ("0002.png", "0000.png")),
            (("elsewhere.png",), ("0001.png", "0002.png", "0000.png")),
        ):
            evidence = replace(made, predictions=answered, images=dict.fromkeys(kept, b""))
            assert confused(evidence, "full")[0].examples == examples

    def test_gain_is_the_difference_of_recalls(self):
        summary = summarise(make_evidence(), draws=200)
        assert summary.gain_over == "feature_extractor"
        for found in summary.classes:
            difference = found.recall[summary.best] - found.recall["feature_extractor"]
            assert found.gain.value == pytest.approx(difference)
            assert found.gain.low <= found.gain.value <= found.gain.high

    def test_the_frozen_backbone_is_set_against_the_runner_up(self):
        summary = summarise(make_evidence(level=LEVEL | {"feature_extractor": 3.0}), draws=200)
        means = {r.strategy: r.val_mean for r in summary.results if r.strategy != "feature_extractor"}
        assert (summary.best, summary.gain_over) == ("feature_extractor", max(means, key=means.get))


class TestRuleOfThumb:
    SMALL_SIMILAR = Scenario(size="small", similarity="similar")

    @pytest.mark.parametrize(
        ("places", "outcome"),
        [
            ({"feature_extractor": "best", "full": "behind"}, "confirmed"),
            ({"feature_extractor": "best", "full": "tied"}, "not decided"),
            ({"feature_extractor": "best"}, "not decided"),
            ({"feature_extractor": "tied", "full": "best"}, "not decided"),
            ({"feature_extractor": "behind", "full": "best"}, "refuted"),
            ({"feature_extractor": "no result", "full": "best"}, "not tested"),
            ({"full": "best"}, "not tested"),
        ],
    )
    def test_outcomes(self, places, outcome):
        assert judge(self.SMALL_SIMILAR, places, compared(places)).outcome == outcome

    def test_what_decides_is_the_closest_call(self):
        places = {"feature_extractor": "best", "partial": "tied", "full": "behind"}
        found = compared(places) | {
            "partial": comparison("partial", "feature_extractor", "tied", -0.02, 0.05)
        }
        deciding = judge(self.SMALL_SIMILAR, places, found).deciding
        assert (deciding.strategy, deciding.best, deciding.margin) == ("partial", "feature_extractor", 0.05)
        assert "if it is behind by 0.050 or more; measured: \N{MINUS SIGN}0.020." in deciding.sentence

    def test_where_lower_is_better_the_closest_call_is_the_lowest(self):
        places = {"feature_extractor": "best", "partial": "tied", "full": "tied"}
        found = {
            name: comparison(name, "feature_extractor", "tied", difference, 0.05)
            for name, difference in (("partial", 0.02), ("full", 0.04))
        }
        closest = [judge(self.SMALL_SIMILAR, places, found, sign).deciding.strategy for sign in (1, -1)]
        assert closest == ["full", "partial"]

    def test_nothing_compared_has_no_margin(self):
        assert judge(self.SMALL_SIMILAR, {"feature_extractor": "best"}, {}).deciding is None

    def test_either_fine_tune_follows_the_advice_on_large_data(self):
        large = Scenario(size="large", similarity="similar")
        places = {"scratch": "behind", "full": "behind", "discriminative": "best"}
        assert judge(large, places, compared(places)).outcome == "confirmed"
        places = {"full": "behind", "partial": "best"}
        assert judge(large, places, compared(places)).outcome == "refuted"

    def test_every_scenario_has_advice_on_strategies_that_exist(self):
        assert set(ADVICE) == {(s, t) for s in ("small", "large") for t in ("similar", "different")}
        assert all(set(a.advised) <= set(Study.model_fields["strategies"].default) for a in ADVICE.values())

    def test_confirmed_and_refuted_are_beyond_the_margin(self):
        level = LEVEL | {"feature_extractor": 2.6}
        summary = summarise(make_evidence(make_study(seeds=5), images=400, level=level))
        assert summary.ruling.outcome == "confirmed"
        assert -summary.ruling.deciding.difference > summary.ruling.deciding.margin

    def test_no_scenario_no_ruling(self):
        assert summarise(make_evidence(make_study(scenario=None)), draws=200).ruling is None
