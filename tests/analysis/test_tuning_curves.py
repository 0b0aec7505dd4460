"""The expected best of so many trials."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.tuning_curves import expected_best, tuning_curves
from tests.support.synthetic import make_evidence, make_study


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=7))
def test_it_is_the_mean_over_all_that_could_have_been_drawn(values):
    found = expected_best(np.array(values))
    for n, expected in enumerate(found, 1):
        assert expected == pytest.approx(np.mean([max(drawn) for drawn in combinations(values, n)]))
    assert found[-1] == pytest.approx(max(values))


def test_each_seed_is_of_its_own_and_a_failed_trial_is_the_worst():
    made = make_evidence(make_study(strategies=["full"], tuning={"trials": 3}, seeds=2), images=20)
    values = pd.Series([0.5, np.nan, 0.7, 0.9, 0.9, 0.9])
    trials = made.trials.assign(
        val_accuracy=values, cached_seconds=[1.0, 2.0, 3.0, 4.0, 4.0, 4.0], feature_seconds=0.0
    )
    object.__setattr__(made, "trials", trials)
    curves = tuning_curves(made)
    assert curves["trials"].tolist() == [1, 2, 3, 1, 2, 3]
    assert curves["expected_best"].tolist() == pytest.approx([1.7 / 3, 1.9 / 3, 0.7, 0.9, 0.9, 0.9])
    assert curves["seconds"].tolist() == [2, 4, 6, 4, 8, 12]


def test_where_lower_is_better_the_best_is_the_lowest(error_rate):
    study = make_study(strategies=["full"], tuning={"trials": 2}, seeds=1, metric=error_rate.name)
    made = make_evidence(study, images=20)
    object.__setattr__(made, "trials", made.trials.assign(**{f"val_{error_rate.name}": [0.2, 0.4]}))
    assert tuning_curves(made)["expected_best"].tolist() == pytest.approx([0.3, 0.2])
