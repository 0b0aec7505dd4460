"""What tuning may be expected to find with so many trials, whatever the order in which they were tried."""

from math import comb

import numpy as np
import pandas as pd

from bench.analysis.evidence import Evidence, tuning_seconds
from bench.study.metrics import METRICS


def expected_best(values: np.ndarray) -> np.ndarray:
    """Return the expected highest of 1, 2, ..., T values drawn from the T given, none of them twice.

    The unbiased form (Tang et al. 2020, "Showing your work doesn't always work") of the expected validation
    performance of Dodge et al. (2019, "Show your work"): with all trials it is the best that was found.

    Args:
        values: of T trials, shape (T,), each finite.

    Returns:
        Shape (T,), rising.
    """
    ordered, count = np.sort(values), len(values)
    drawn = range(1, count + 1)
    weights = [[comb(place - 1, n - 1) / comb(count, n) for place in drawn] for n in drawn]
    expected: np.ndarray = np.array(weights).reshape(count, count) @ ordered
    return expected


def tuning_curves(evidence: Evidence) -> pd.DataFrame:
    """Return what so many trials may be expected to find: a row for each strategy, seed and number of them.

    A pruned trial counts with what it had reached, a failed one with the worst of its seed. The columns are
    strategy, seed, trials, expected_best (the study's metric on val) and seconds (of so many trials, each as
    long as the mean of its seed).
    """
    metric = METRICS[evidence.study.metric]
    trials = evidence.trials
    column = f"val_{metric.name}"
    value = trials[column].astype(float) if column in trials else pd.Series(np.nan, trials.index)
    data = trials[["strategy", "seed"]].assign(value=metric.sign * value, seconds=tuning_seconds(trials))
    rows = []
    for (strategy, seed), own in data.groupby(["strategy", "seed"], sort=False):
        if own["value"].notna().any():
            best = metric.sign * expected_best(own["value"].fillna(own["value"].min()).to_numpy())
            each = own["seconds"].mean()
            rows += [(strategy, seed, n, found, n * each) for n, found in enumerate(best, 1)]
    return pd.DataFrame(rows, columns=["strategy", "seed", "trials", "expected_best", "seconds"])
