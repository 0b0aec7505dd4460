"""Whether strategies had steps enough: what has not reached its plateau is judged on less than it can do."""

import statistics
from collections.abc import Sequence

from bench.analysis.evidence import Evidence, of_done
from bench.study.metrics import METRICS

PLATEAU = "plateau"  # the schedule whose curve shows one: under any other the rate falls all the time


def best_steps(evidence: Evidence) -> dict[str, list[int]]:
    """Return after how many steps each final run had the weights that it was tested with, by strategy.

    Those are of the evaluation that is best on val, among equals of the lower loss, then the earlier one.
    """
    sign, column = METRICS[evidence.study.metric].sign, f"val_{evidence.study.metric}"
    curves = of_done(evidence, evidence.curves)
    ranked = curves.assign(score=sign * curves[column].astype(float), loss=-curves["val_loss"].astype(float))
    best = ranked.sort_values(["score", "loss", "step"], ascending=[False, False, True], kind="stable")
    found = best.groupby(["strategy", "seed"], sort=True)["step"].first()
    return {str(name): [int(step) for step in steps] for name, steps in found.groupby("strategy")}


def rises(evidence: Evidence) -> dict[str, float]:
    """Return by how much val rose over the second half of the evaluations at the peak rate, by strategy.

    That is the best of the second half minus the best of the first, in the direction that is better, mean
    over the final runs. Noise alone gives 0 on average. A run that had reached its plateau, which has no
    better evaluation in the last `patience` of them, counts as 0. Strategies that take no steps have no
    entry, and none has any under a schedule other than `plateau`.
    """
    study = evidence.study
    column = f"val_{study.metric}"
    curves = of_done(evidence, evidence.curves)
    if study.training.schedule != PLATEAU or column not in curves:
        return {}
    found: dict[str, list[float]] = {}
    for (strategy, _), curve in curves.sort_values("step").groupby(["strategy", "seed"], sort=False):
        rates = curve["learning_rate"].astype(float)
        at_peak = curve[rates >= rates.max() * (1 - 1e-6)]
        scores = (METRICS[study.metric].sign * at_peak[column].astype(float)).tolist()
        if rates.max() > 0 and len(scores) > 1:
            found.setdefault(str(strategy), []).append(_rise(scores, study.training.patience))
    return {strategy: statistics.mean(of_runs) for strategy, of_runs in found.items()}


def _rise(scores: Sequence[float], patience: int) -> float:
    if scores.index(max(scores)) < len(scores) - patience:
        return 0.0
    half = len(scores) // 2
    return max(scores[len(scores) - half :]) - max(scores[:half])


def undertrained(evidence: Evidence) -> dict[str, float]:
    """Return the strategies whose val still rose by more than the smallest difference that matters."""
    least = evidence.study.smallest_effect
    return {strategy: rise for strategy, rise in rises(evidence).items() if rise > least}


def undertrained_in_words(evidence: Evidence) -> tuple[str, ...]:
    """Name the strategies that had too few steps, in a sentence; nothing where there are none."""
    found = [f"{strategy} (by {rise:.3f})" for strategy, rise in undertrained(evidence).items()]
    if not found:
        return ()
    metric = METRICS[evidence.study.metric].label
    which = f"val {metric} still rose in the second half of the steps of {', '.join(found)}"
    return (f"Undertrained: {which}. With more steps the order may be another.",)
