"""The distribution of an error: what is standard where it is standard, published tables, simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.spread import Spread, spread_of


def of_two_parts(seeds, images, seed_degrees, image_degrees, **more):
    return Spread(seeds, more.pop("interaction", 0.0), images, seed_degrees + 1, image_degrees, **more)


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 30])
@pytest.mark.parametrize("size", [0.5, 2.0, 8.0])
def test_a_single_part_is_students_t(degrees, size):
    for spread in (of_two_parts(4.0, 0.0, degrees, 700), of_two_parts(0.0, 4.0, 4, degrees)):
        assert spread.tail(2 * size) == pytest.approx(stats.t.sf(size, degrees), rel=1e-4)


@pytest.mark.parametrize(
    ("degrees", "published"),
    [((6, 6), 2.435), ((6, 12), 2.301), ((12, 12), 2.167), ((8, 8), 2.292)],
)
def test_two_equal_parts_have_the_quantile_of_the_published_table(degrees, published):
    """Fisher and Yates, Statistical Tables, table VI: Behrens' distribution at 45 degrees, 5 %."""
    assert of_two_parts(0.5, 0.5, *degrees).quantile(0.025) == pytest.approx(published, abs=0.002)


def test_the_tail_is_that_of_a_sum_of_two_t_variables():
    draw = np.random.default_rng(0)
    parts = 0.7**0.5 * draw.standard_t(4, 400_000) + 0.3**0.5 * draw.standard_t(18, 400_000)
    assert of_two_parts(0.7, 0.3, 4, 18).tail(2.5) == pytest.approx((parts > 2.5).mean(), rel=0.05)


@given(st.floats(0, 1), st.sampled_from([2, 4, 9]), st.sampled_from([1.0, 18.0, 699.0]))
def test_the_quantile_is_where_the_tail_is(share, seed_degrees, image_degrees):
    spread = of_two_parts(share, 1 - share, seed_degrees, image_degrees)
    assert spread.tail(spread.quantile(0.01)) == pytest.approx(0.01, rel=1e-6)


@given(st.floats(1e-6, 1e3))
def test_the_unit_does_not_matter(scale):
    spread = of_two_parts(0.4, 0.6, 4, 50, interaction=0.1, unseen=2.0)
    scaled = spread.scaled(scale**2, scale**2)
    assert scaled.quantile(0.025) == pytest.approx(scale * spread.quantile(0.025))


def test_arrays_are_taken_one_by_one():
    seeds, images = np.array([0.2, 0.5]), np.array([0.8, 0.1])
    together = of_two_parts(seeds, images, 4, 30, interaction=seeds / 2, unseen=1.5).tail(
        np.array([1.0, 2.0])
    )
    for place, size in enumerate((1.0, 2.0)):
        alone = of_two_parts(
            seeds[place], images[place], 4, 30, interaction=seeds[place] / 2, unseen=1.5
        ).tail(size)
        assert together[place] == pytest.approx(float(alone))


def test_of_one_seed_nothing_is_known_but_the_images():
    spread = spread_of(np.array([0.7]), np.array([[4.0]]), 20, 0.5)
    assert (spread.seeds, spread.images, spread.degrees) == (0, 4, 20)
    assert spread.tail(4.0) == pytest.approx(stats.t.sf(2.0, 20))


def test_parts_are_those_of_the_analysis_of_variance():
    """Seeds by images, one prediction each: mean squares, and the components that follow from them."""
    draw = np.random.default_rng(1)
    table = draw.normal(0, 1, (4, 1)) + draw.normal(0, 1, 60) + draw.normal(0, 0.5, (4, 60))
    by_seed, by_image = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_image + table.mean()
    residual = (rest**2).sum() / (3 * 59)
    spread = spread_of(by_seed, np.cov(table) / 60, 59, 0.0)
    assert spread.seeds == pytest.approx(by_seed.var(ddof=1) / 4)
    assert spread.interaction == pytest.approx(residual / (4 * 60))
    assert spread.images == pytest.approx((by_image.var(ddof=1) - residual / 4) / 60)


def test_the_variance_of_a_mean_is_unbiased():
    draw = np.random.default_rng(2)
    means, totals = [], []
    for _ in range(4000):
        table = 0.3 * draw.normal(size=(5, 1)) + draw.normal(size=40) + draw.normal(size=(5, 40))
        means.append(table.mean())
        totals.append(spread_of(table.mean(axis=1), np.cov(table) / 40, 39, 0.0).total)
    assert np.mean(totals) == pytest.approx(np.var(means), rel=0.06)


def test_satterthwaite_by_hand():
    # 3 + 1 = 4; 16 / (9/4 + 1/10) = 6.809
    assert of_two_parts(3.0, 1.0, 4, 10).degrees == pytest.approx(16 / (9 / 4 + 1 / 10))
    assert of_two_parts(0.0, 0.0, 4, 10).degrees == float("inf")


class TestOverlap:
    def spread(self, overlap, count=5):
        values = np.linspace(0.0, 0.1, count)
        return spread_of(values, np.full((count, count), 1e-4) + 1e-4 * np.eye(count), 50, overlap)

    def test_what_is_unseen_is_that_of_nadeau_and_bengio(self):
        """1 / S becomes 1 / S + r / (1 - r), of what seeds differ by but for the interaction."""
        free, bound = self.spread(0.0), self.spread(0.4)
        apart = 5 * (free.seeds - free.interaction)
        assert free.unseen == 0
        assert bound.total - free.total == pytest.approx(apart * 0.4 / 0.6)

    @pytest.mark.parametrize("overlap", [0.51, 0.97, 1.0])
    def test_of_other_training_images_nothing_is_said_where_most_are_in_common(self, overlap):
        assert self.spread(overlap) == self.spread(0.0)

    def test_more_in_common_is_less_sure(self):
        halves = [self.spread(overlap).quantile(0.025) for overlap in (0.0, 0.1, 0.3, 0.5)]
        assert halves == sorted(halves)
        assert halves[-1] > 1.5 * halves[0]

    def test_one_seed_has_nothing_in_common(self):
        assert self.spread(0.5, count=1).unseen == 0
