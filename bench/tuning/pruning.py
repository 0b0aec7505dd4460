"""Which trials end early: one rule for every strategy of a study."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from bench.study.schema import Tuning


def build_pruner(tuning: Tuning, epochs: int) -> BasePruner:
    """Return the pruner, with the same rules for every strategy.

    Successive halving (Li et al. 2020, ASHA): rungs at a quarter of the epochs and three times that; the best
    third of what reached a rung goes on. Median: stops what is below the median of earlier trials.
    """
    first = max(1, round(epochs / 4))
    if tuning.pruner == "successive_halving":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=3, min_early_stopping_rate=0)
    if tuning.pruner == "median":
        return MedianPruner(n_startup_trials=1, n_warmup_steps=first)
    return NopPruner()
