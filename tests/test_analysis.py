"""The statistics: answers by hand, other derivations of the same number, simulations with a known truth."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic import LEVEL, make_evidence, make_study

from bench.analysis import Evidence, summarise
from bench.analysis.advice import ADVICE, judge
from bench.analysis.bootstrap import Crossed, Variance, holm
from bench.analysis.evidence import answers, canonical
from bench.study import Scenario, Study


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
        monkeypatch.setattr("bench.analysis.bootstrap.BLOCK", 999)
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
        found = answers(replace(made, predictions=short))
        assert found.correct.shape == (15, 19)
        assert found.dropped == 1

    def test_an_image_named_twice_is_refused(self):
        made = make_evidence(images=5)
        with pytest.raises(ValueError, match="duplicate"):
            answers(replace(made, predictions=pd.concat([made.predictions, made.predictions.iloc[:1]])))


class TestSummary:
    def test_means_agree_with_the_runs_own_metrics(self):
        for metric in ("accuracy", "balanced_accuracy"):
            summary = summarise(make_evidence(make_study(metric=metric)), draws=200)
            for result in summary.results:
                assert result.test.value == pytest.approx(result.test_mean)

    def test_is_json_and_repeatable(self):
        first, second = (summarise(make_evidence(), draws=200) for _ in range(2))
        assert json.dumps(first.as_json(), allow_nan=False) == json.dumps(second.as_json(), allow_nan=False)

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

    def test_costs_are_sums_of_trials_and_means_of_runs(self):
        result = summarise(make_evidence(), draws=200).result("full")
        assert result.tuning_seconds == 8 * (22 + 1)
        assert result.train_seconds == pytest.approx(23)  # 22, 23, 24
        assert result.trials == {"done": 6, "pruned": 2, "failed": 0}

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


class TestRuleOfThumb:
    SMALL_SIMILAR = Scenario(size="small", similarity="similar")
    WORDS = dict.fromkeys(LEVEL, "differs")

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
        assert judge(self.SMALL_SIMILAR, places, self.WORDS).outcome == outcome

    def test_either_fine_tune_follows_the_advice_on_large_data(self):
        large = Scenario(size="large", similarity="similar")
        places = {"scratch": "behind", "full": "behind", "discriminative": "best"}
        assert judge(large, places, self.WORDS).outcome == "confirmed"
        assert judge(large, {"full": "behind", "partial": "best"}, self.WORDS).outcome == "refuted"

    def test_every_scenario_has_advice_on_strategies_that_exist(self):
        assert set(ADVICE) == {(s, t) for s in ("small", "large") for t in ("similar", "different")}
        assert all(set(a.advised) <= set(Study.model_fields["strategies"].default) for a in ADVICE.values())

    def test_no_scenario_no_ruling(self):
        assert summarise(make_evidence(make_study(scenario=None)), draws=200).ruling is None
