"""Means and differences: answers by hand, closed forms of other libraries, simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from bench.analysis.statistics import shares
from bench.analysis.variance import LEAST_GROUPS, Crossed, Sample, Scale
from tests.support.synthetic import crossed_of

MARGIN = 0.02
SHARES = Scale(shares=True)


def answer_at_random(draw, seeds, difficulty, *, mean=1.0, seed_sd=0.1, noise=0.6):
    """Return correctness (seeds, images), and its mean over all that might have been drawn."""
    skill = mean + draw.normal(0, seed_sd, (seeds, 1))
    right = skill - difficulty + draw.normal(0, noise, (seeds, len(difficulty))) > 0
    return right.astype(float), stats.norm.cdf(mean / np.sqrt(seed_sd**2 + difficulty.var() + noise**2))


def answers_of(number, seeds, images, **changes):
    draw = np.random.default_rng(number)
    return answer_at_random(draw, seeds, draw.normal(0, 1, images), **changes)[0]


def in_groups(draw, seeds, groups, size, *, spread=0.7, seed_sd=0.1):
    """Return correctness of images that come in groups, the groups, and the true share."""
    difficulty = np.repeat(draw.normal(0, spread, groups), size) + draw.normal(0, 0.5, groups * size)
    skill = 1.0 + draw.normal(0, seed_sd, (seeds, 1))
    right = skill - difficulty + draw.normal(0, 0.5, (seeds, groups * size)) > 0
    truth = stats.norm.cdf(1 / np.sqrt(seed_sd**2 + spread**2 + 0.5))
    return right.astype(float), np.repeat(np.arange(groups), size), truth


class TestSample:
    def test_independent_images_give_the_covariance_of_a_mean(self):
        correct = answers_of(1, 4, 50)
        sums = Sample.independent(50).by_group(shares(correct, Sample.independent(50))[1])
        assert sums @ sums.T == pytest.approx(np.cov(correct) / 50)

    def test_equal_groups_are_those_of_statsmodels(self):
        import statsmodels.api as sm

        correct, groups, _ = in_groups(np.random.default_rng(2), 1, 12, 7)
        robust = sm.OLS(correct[0], np.ones(84)).fit(cov_type="cluster", cov_kwds={"groups": groups})
        sums = (sample := Sample(groups, np.zeros(84, int))).by_group(shares(correct, sample)[1])
        assert (sums @ sums.T)[0, 0] == pytest.approx(robust.cov_params()[0, 0])

    def test_uneven_groups_are_left_out_one_at_a_time(self):
        draw = np.random.default_rng(3)
        groups = draw.integers(0, 9, 80)
        correct = (draw.random((2, 80)) < 0.7).astype(float)
        sample = Sample(groups, np.zeros(80, int))
        values, influence = shares(correct, sample)
        without = np.stack([correct[:, groups != g].mean(axis=1) for g in range(9)], axis=1) - values[:, None]
        sums = sample.by_group(influence)
        assert sums @ sums.T == pytest.approx(8 / 9 * without @ without.T)

    def test_images_vary_within_classes(self):
        correct = (np.random.default_rng(2).random((1, 50)) < 0.7).astype(float)
        strata = np.repeat([0, 1], [10, 40])
        sample = Sample(np.arange(50), strata)
        parts = [correct[0, strata == c].var(ddof=1) / (strata == c).sum() for c in (0, 1)]
        sums = sample.by_group(shares(correct, sample)[1])
        assert (sums @ sums.T)[0, 0] == pytest.approx(sum(parts) / 4)

    def test_groups_of_one_are_no_groups(self):
        correct, strata = answers_of(4, 3, 60), np.random.default_rng(4).integers(0, 3, 60)
        one, other = (Sample(groups, strata) for groups in (np.arange(60), 7 * np.arange(60)[::-1]))
        products = [(s := sample.by_group(shares(correct, sample)[1])) @ s.T for sample in (one, other)]
        assert products[0] == pytest.approx(products[1])
        assert one.degrees == pytest.approx(other.degrees)
        assert (one.grouped, other.grouped, other.count) == (False, False, 60)

    def test_degrees_are_one_less_than_equal_groups_and_fewer_for_uneven_ones(self):
        assert Sample(np.repeat(np.arange(12), 5), np.zeros(60, int)).degrees == pytest.approx(11)
        assert Sample(np.repeat(np.arange(12), [49] + [1] * 11), np.zeros(60, int)).degrees == 1
        # of a rare class few images, which carry half of the weight: hardly more than those
        rare = Sample(np.arange(105), np.repeat([0, 1], [5, 100]))
        assert 4 < rare.degrees < 5

    def test_a_class_within_one_group_says_nothing_of_groups(self):
        sample = Sample(np.repeat([0, 1, 2], 4), np.repeat([0, 1, 1], 4))
        correct = np.array([[1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0.0]])
        assert sample.by_group(shares(correct, sample)[1])[0, 0] == 0


class TestEstimate:
    def test_balanced_accuracy_is_the_mean_of_recalls(self):
        correct = [[1, 0, 0, 0, 1, 1]]
        assert crossed_of(correct, strata=[0, 0, 0, 0, 1, 1]).estimate([0]).value == pytest.approx(0.625)
        assert crossed_of(correct).estimate([0]).value == pytest.approx(0.5)

    @pytest.mark.parametrize(("right", "images"), [(1, 30), (0, 30)])
    def test_all_right_or_all_wrong_is_wilsons_interval(self, right, images):
        found = crossed_of(np.full((5, images), right)).estimate(range(5))
        interval = stats.binomtest(right * images, images).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-6)

    def test_all_right_in_groups_is_as_sure_as_there_are_groups(self):
        found = crossed_of(np.ones((3, 60)), groups=np.repeat(np.arange(12), 5)).estimate(range(3))
        assert found.low == pytest.approx(
            stats.binomtest(12, 12).proportion_ci(method="wilson").low, abs=1e-6
        )

    def test_one_image_or_one_group_says_nothing(self):
        for found in (crossed_of([[1], [1]]), crossed_of([[1, 0, 1, 1]], groups=[3, 3, 3, 3])):
            assert (found.estimate([0]).low, found.estimate([0]).high) == (0, 1)

    def test_one_seed_is_the_interval_of_log_odds_with_t(self):
        correct = np.repeat([[1, 0]], [300, 100], axis=1)
        found = crossed_of(correct).estimate([0])
        odds = np.log(300.5 / 100.5)  # 400 predictions, less one for the sample variance
        half = stats.t.ppf(0.975, 399) * np.sqrt(0.75 * 0.25 / 399) / (0.75 * 0.25)
        expected = special.expit(odds - half), special.expit(odds + half)
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-4)
        assert (found.seeds, found.seed_share) == (1, 0.0)

    def test_few_seeds_that_differ_widen_the_interval(self):
        images = np.arange(200)
        alike = np.tile(images < 150, (5, 1))
        differ = np.stack([images < edge for edge in (110, 130, 150, 170, 190)])
        narrow, wide = (crossed_of(c).estimate(range(5)) for c in (alike, differ))
        assert wide.value == narrow.value == 0.75
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
        assert narrow.seed_share == 0
        assert wide.seed_share > 0.5

    def test_images_of_a_group_count_less_than_independent_ones(self):
        correct, groups, _ = in_groups(np.random.default_rng(5), 1, 30, 10)
        alone, together = (crossed_of(correct, groups=g).estimate([0]) for g in (np.arange(300), groups))
        assert together.value == pytest.approx(alone.value)
        assert together.high - together.low > 1.5 * (alone.high - alone.low)

    @given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 99))
    def test_always_inside_zero_and_one_around_the_mean(self, seeds, images, number):
        draw = np.random.default_rng(number)
        correct = draw.random((seeds, images)) < draw.random()
        sample = {"strata": draw.integers(0, 3, images), "groups": draw.integers(0, 6, images)}
        found = crossed_of(correct, **sample).estimate(range(seeds))
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1

    @pytest.mark.parametrize("range_", [(0.0, 1.0), (0.0, 100.0), (-1.0, 1.0)])
    def test_the_unit_of_a_metric_moves_nothing(self, range_):
        correct, sample = answers_of(6, 3, 50), Sample.independent(50)
        values, influence = shares(correct, sample)
        low, span = range_[0], range_[1] - range_[0]
        one = Crossed(values, influence, sample, Scale())
        other = Crossed(low + span * values, span * influence, sample, Scale(range=range_))
        here, there = one.estimate(range(3)), other.estimate(range(3))
        expected = low + span * here.low, low + span * here.high
        assert (there.low, there.high) == pytest.approx(expected)
        gaps = [crossed.difference([0], [1], MARGIN * s) for crossed, s in ((one, 1), (other, span))]
        for name in ("p", "p_below", "p_above"):
            assert getattr(gaps[0], name) == pytest.approx(getattr(gaps[1], name))

    def test_without_a_highest_value_the_interval_is_symmetric(self):
        values, influence = shares(answers_of(7, 3, 50), Sample.independent(50))
        scale = Scale(-1, (0.0, float("inf")))
        found = Crossed(5 * values, 5 * influence, Sample.independent(50), scale).estimate(range(3))
        assert found.high - found.value == pytest.approx(found.value - found.low)

    @pytest.mark.parametrize("seed_sd", [0.0, 0.3])
    def test_covers_the_truth_as_often_as_it_says(self, seed_sd):
        draw, hits = np.random.default_rng(4), []
        for _ in range(200):
            difficulty = draw.normal(0, 1, 200)
            correct, _ = answer_at_random(draw, 5, difficulty, seed_sd=seed_sd)
            truth = stats.norm.cdf(1 / np.sqrt(seed_sd**2 + 1 + 0.6**2))
            found = crossed_of(correct).estimate(range(5))
            hits.append(found.low <= truth <= found.high)
        assert 0.91 <= np.mean(hits) <= 0.99  # 200 of 0.95: standard error 0.015

    def test_covers_the_truth_where_images_come_in_groups(self):
        draw, hits, naive = np.random.default_rng(8), [], []
        for _ in range(200):
            correct, groups, truth = in_groups(draw, 3, 20, 15)
            for kept, g in ((hits, groups), (naive, np.arange(300))):
                found = crossed_of(correct, groups=g).estimate(range(3))
                kept.append(found.low <= truth <= found.high)
        assert 0.9 <= np.mean(hits) <= 0.99
        assert np.mean(naive) < 0.85


class TestDifference:
    def test_one_seed_is_the_paired_t_test_over_images(self):
        draw = np.random.default_rng(5)
        first, second = draw.random(80) < 0.8, draw.random(80) < 0.7
        found = crossed_of([first, second]).difference([0], [1], MARGIN)
        test = stats.ttest_rel(first.astype(float), second.astype(float))
        interval = test.confidence_interval()
        assert found.p == pytest.approx(test.pvalue)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))

    def test_only_seeds_differing_is_the_paired_t_test_over_seeds(self):
        # each run is right on all images or on none, so only seeds vary
        scores, others = np.array([1, 1, 1, 1, 0]), np.array([0, 0, 1, 0, 0])
        correct = np.repeat([*scores, *others], 20).reshape(10, 20)
        found = crossed_of(correct).difference(range(5), range(5, 10), MARGIN)
        assert found.value == pytest.approx(0.6)
        assert found.p == pytest.approx(stats.ttest_rel(scores, others).pvalue, rel=1e-4)

    def test_one_seed_in_groups_is_the_t_test_over_groups(self):
        correct, groups, _ = in_groups(np.random.default_rng(6), 2, 14, 6)
        found = crossed_of(correct, groups=groups).difference([0], [1], MARGIN)
        means = (correct[0] - correct[1]).reshape(14, 6).mean(axis=1)
        assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)

    def test_equivalence_is_the_two_one_sided_tests_of_statsmodels(self):
        from statsmodels.stats.weightstats import ttost_paired

        draw = np.random.default_rng(9)  # half of each is right: there a share varies most
        first = draw.permutation(np.repeat([1.0, 0.0], 200))
        second = np.where(draw.random(400) < 0.02, 1 - first, first)
        second[np.flatnonzero(second != first)] = np.resize([1.0, 0.0], (second != first).sum())
        found = crossed_of([first, second]).difference([0], [1], 0.05)
        p, below, above = ttost_paired(first, second, -0.05, 0.05)
        assert (found.p_below, found.p_above) == pytest.approx((below[1], above[1]), rel=0.05)
        assert max(found.p_below, found.p_above) == pytest.approx(p, rel=0.05)

    def test_near_the_end_of_the_range_equivalence_is_harder(self):
        draw = np.random.default_rng(10)
        right = [(draw.random(400) < 0.99).astype(float) for _ in range(2)]
        bound = crossed_of(right).difference([0], [1], MARGIN)
        values, influence = shares(np.array(right), Sample.independent(400))
        free = Crossed(values, influence, Sample.independent(400), Scale(range=(0.0, float("inf"))))
        assert bound.p == pytest.approx(free.difference([0], [1], MARGIN).p)
        assert bound.p_below > free.difference([0], [1], MARGIN).p_below

    def test_swapping_sides_swaps_the_sign_only(self):
        crossed = crossed_of(answers_of(6, 6, 50))
        one, other = (
            crossed.difference(*s, MARGIN) for s in (([0, 1, 2], [3, 4, 5]), ([3, 4, 5], [0, 1, 2]))
        )
        turned = other.reversed()
        for name in ("value", "low", "high", "p", "p_below", "p_above"):
            assert getattr(one, name) == pytest.approx(getattr(turned, name))
        assert one.spread == turned.spread == other.spread

    @pytest.mark.parametrize("number", range(4))
    def test_the_order_of_images_and_seeds_does_not_matter(self, number):
        draw = np.random.default_rng(number)
        correct, strata = answers_of(number, 6, 60), draw.integers(0, 2, 60)
        groups = draw.integers(0, 20, 60)
        images, seeds = draw.permutation(60), draw.permutation(3)
        one = crossed_of(correct, strata=strata, groups=groups)
        other = crossed_of(correct[:, images], strata=strata[images], groups=groups[images])
        here = one.difference([0, 1, 2], [3, 4, 5], MARGIN)
        there = other.difference(seeds, seeds + 3, MARGIN)
        for name in ("value", "low", "high", "p", "p_below", "p_above"):
            assert getattr(here, name) == pytest.approx(getattr(there, name))

    def test_equal_answers_are_not_different(self):
        found = crossed_of(np.tile(np.arange(20) < 15, (4, 1))).difference([0, 1], [2, 3], MARGIN)
        assert (found.value, found.p) == (0, 1)
        # no image out of 20 differs: the rule of three's exact form leaves up to 1 - 0.025^(1/20) = 0.168
        assert (found.low, found.high) == pytest.approx((-0.168, 0.168), abs=0.001)
        assert found.p_below == found.p_above == pytest.approx(0.98**20)

    def test_right_on_all_against_wrong_on_all_is_the_sign_test(self):
        found = crossed_of([[1] * 12, [0] * 12]).difference([0], [1], MARGIN)
        assert found.value == 1
        assert found.p == pytest.approx(stats.binomtest(12, 12).pvalue)
        assert (found.p_below, found.p_above) == (2**-12, 1)

    def test_one_image_decides_nothing(self):
        found = crossed_of([[1], [1], [0], [0]]).difference([0, 1], [2, 3], MARGIN)
        assert (found.low, found.high, found.p) == (-1, 1, None)

    @pytest.mark.parametrize(("groups", "decides"), [(LEAST_GROUPS - 1, False), (LEAST_GROUPS, True)])
    def test_too_few_groups_are_not_tested(self, groups, decides):
        crossed = crossed_of(answers_of(8, 4, 90), groups=np.arange(90) % groups)
        found = crossed.difference([0, 1], [2, 3], MARGIN)
        assert crossed.decides is decides
        assert [p is not None for p in (found.p, found.p_below, found.p_above)] == [decides] * 3
        assert found.low < found.value < found.high

    def test_training_images_in_common_make_a_difference_less_sure(self):
        correct = answers_of(3, 10, 200, seed_sd=0.4)
        sure, unsure = (
            crossed_of(correct, overlap=overlap).difference(range(5), range(5, 10), MARGIN)
            for overlap in (0.0, 0.3)
        )
        assert unsure.value == sure.value
        assert unsure.p > sure.p
        assert unsure.high - unsure.low > sure.high - sure.low

    def test_equal_strategies_have_p_values_that_are_not_too_small(self):
        """Without a difference p is uniform, or larger: the estimated parts are answered for."""
        draw, p = np.random.default_rng(7), []
        for _ in range(300):
            difficulty = draw.normal(0, 1, 150)
            arms = [answer_at_random(draw, 5, difficulty, seed_sd=0.2)[0] for _ in range(2)]
            p.append(crossed_of(np.concatenate(arms)).difference(range(5), range(5, 10), MARGIN).p)
        for level in (0.01, 0.05, 0.2, 0.5):
            assert np.mean(np.array(p) < level) <= level + 2.5 * np.sqrt(level * (1 - level) / 300)
        assert np.mean(np.array(p) < 0.5) > 0.4

    def test_a_real_difference_is_found(self):
        draw, found = np.random.default_rng(8), 0
        for _ in range(50):
            difficulty = draw.normal(0, 1, 300)
            better, _ = answer_at_random(draw, 5, difficulty, mean=1.5)
            worse, _ = answer_at_random(draw, 5, difficulty, mean=1.0)
            both = crossed_of(np.concatenate([better, worse]))
            found += both.difference(range(5), range(5, 10), MARGIN).p < 0.05
        assert found >= 45
