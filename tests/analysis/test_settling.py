"""What would settle what is open: as many seeds or images as are asked for, and not one less."""

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.comparisons import ALPHA, compare_all
from bench.analysis.sequential import settles
from bench.analysis.settling import FEWEST_SEEDS, MOST_SEEDS, what_would_settle
from bench.analysis.spread import Spread
from tests.support.synthetic import comparison, crossed_of

COMMAND = "bench run small_similar"


def open_pair(value=0.03, seeds=3e-4, images=1e-5, count=5):
    """Return an undecided comparison, of which seeds and images make up so much of the variance."""
    made = comparison("full", "frozen", value=value)
    spread = Spread(seeds, 0.0, images, count, 500.0)
    return replace(made, difference=replace(made.difference, spread=spread, seeds=count))


def test_as_many_seeds_as_settle_it_and_not_one_less():
    pair = open_pair()
    found = what_would_settle("frozen", [pair], 500, COMMAND)
    spread, levels = pair.difference.spread, (ALPHA, ALPHA)
    assert 5 < found.seeds < MOST_SEEDS
    assert settles(0.03, spread.with_seeds(found.seeds), 0.02, levels)
    assert not settles(0.03, spread.with_seeds(found.seeds - 1), 0.02, levels)
    assert found.command == f"bench run small_similar --seeds {found.seeds}"
    assert found.sentence == (
        f"Open: how frozen differs from full. If differences stay as they are, "
        f"about {found.seeds} seeds would settle it."
    )


def test_where_seeds_are_not_the_trouble_images_are_asked_for():
    found = what_would_settle("frozen", [open_pair(seeds=1e-5, images=4e-4)], 500, COMMAND)
    assert (found.seeds, found.command) == (None, "")
    assert found.images > 500
    assert f"about {found.images:,} test images, and not 500" in found.sentence


def test_of_several_the_one_that_takes_most():
    near, far = open_pair(0.03), replace(open_pair(0.024), strategy="partial")
    alone = what_would_settle("frozen", [near, far], 500, COMMAND)
    assert alone.other == "partial"
    assert "from full and partial." in alone.sentence


def test_a_difference_of_just_the_margin_is_beyond_reach():
    """Neither told from zero nor smaller than what matters, however small the spread of images becomes."""
    pair = open_pair(0.0199, seeds=1.0, images=1.0)
    found = what_would_settle("frozen", [pair], 500, COMMAND)
    assert (found.seeds, found.images) == (None, None)
    assert "too close" in found.sentence


def test_one_seed_does_not_show_how_much_seeds_differ():
    found = what_would_settle("frozen", [open_pair(count=1, seeds=0.0)], 500, "bench run ~/photos --seeds 1")
    assert found.command == f"bench run ~/photos --seeds {FEWEST_SEEDS}"
    assert "A single seed" in found.sentence


def test_what_is_settled_or_concerns_others_is_not_open():
    assert what_would_settle("frozen", [comparison("full", "frozen", "equivalent")], 500, COMMAND) is None
    others = [open_pair(), comparison("scratch", "frozen", "worse")]
    assert what_would_settle("scratch", others, 500, COMMAND) is None


@pytest.mark.parametrize("more", [2, 3])
def test_more_seeds_and_images_have_the_spread_that_was_foretold(more):
    """Of runs drawn with known variances: the mean of what is foretold is that of what is then seen."""
    rng = np.random.default_rng(0)

    def total(seeds, images, times):
        skill = rng.normal(1, 0.3, (2, seeds, 1))
        right = skill - rng.normal(0, 1, images) + rng.normal(0, 0.5, (2, seeds, images)) > 0
        crossed = crossed_of(right.reshape(2 * seeds, images))
        rows = {"one": dict(enumerate(range(seeds))), "other": dict(enumerate(range(seeds, 2 * seeds)))}
        (pair,) = compare_all(rows, crossed, 0.02)
        spread = pair.difference.spread
        return [s.total for s in (spread, spread.with_seeds(times * seeds), spread.with_images(times))]

    small = np.mean([total(4, 100, more) for _ in range(400)], axis=0)
    of_seeds = np.mean([total(4 * more, 100, 1)[0] for _ in range(400)])
    of_images = np.mean([total(4, 100 * more, 1)[0] for _ in range(400)])
    assert small[1] == pytest.approx(of_seeds, rel=0.2)
    assert small[2] == pytest.approx(of_images, rel=0.2)
