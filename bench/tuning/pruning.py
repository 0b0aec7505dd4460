"""Which trials end early: one rule for every strategy of a study."""

import warnings
from collections.abc import Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from bench.study.schema import Study

REDUCTION = 3  # of successive halving: the best third of what reached a rung goes on


def build_pruner(study: Study, evaluations: Sequence[int]) -> BasePruner:
    """Return the pruner, with the same rules for every strategy.

    Nothing is judged before a third of the steps, nor before the warm-up is over: what a rate reached that
    still rises says nothing of where it leads. Successive halving (Li et al. 2020, ASHA): a rung there; the
    best third of what reached it goes on. Median: from there on, what is below the median of earlier trials
    stops.

    Args:
        study: its tuning and its training.
        evaluations: after how many steps a run is evaluated.
    """
    first = first_rung(study, evaluations)
    if study.tuning.pruner == "successive_halving":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return SuccessiveHalvingPruner(
                min_resource=first, reduction_factor=REDUCTION, min_early_stopping_rate=0
            )
    if study.tuning.pruner == "median":
        return MedianPruner(n_startup_trials=1, n_warmup_steps=first)
    return NopPruner()


def first_rung(study: Study, evaluations: Sequence[int]) -> int:
    """Return the steps after which a trial is judged first."""
    earliest = max(1 / REDUCTION, study.training.warmup) * evaluations[-1]
    return next(step for step in evaluations if step >= earliest)
