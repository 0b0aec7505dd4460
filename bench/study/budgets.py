"""Presets of trials, seeds, steps and labels."""

from typing import Literal

from bench.core.errors import InputError
from bench.study.allowance import DEFAULT_STEPS
from bench.study.metrics import METRICS, ShareRight
from bench.study.schema import Study, Training, with_changes
from bench.study.tasks import TASKS

Budget = Literal["smoke", "default", "full"]
SMOKE = {"trials": 2, "seeds": 2, "epochs": 2, "cap": 48}
FULL = {"trials": 12, "seeds": 10, "factor": 3}  # factor: of steps or epochs


def apply_budget(study: Study, budget: Budget) -> Study:
    """Return the study at a budget: `smoke` shows that it works, `full` is for a paper."""
    if budget == "smoke":
        return with_changes(
            study,
            seeds=SMOKE["seeds"],
            target=with_changes(study.target, cap=min(SMOKE["cap"], study.target.cap or SMOKE["cap"])),
            training=with_changes(study.training, steps=None, epochs=SMOKE["epochs"]),
            tuning=with_changes(study.tuning, trials=SMOKE["trials"]),
        )
    if budget == "full":
        return with_changes(
            study,
            seeds=FULL["seeds"],
            training=_longer(study.training, FULL["factor"]),
            tuning=with_changes(study.tuning, trials=FULL["trials"]),
        )
    return study


def _longer(training: Training, factor: int) -> Training:
    if training.epochs is not None:
        return with_changes(training, epochs=training.epochs * factor)
    return with_changes(training, steps=(training.steps or DEFAULT_STEPS) * factor)


def with_labels(study: Study, count: int) -> Study:
    """Return the study with another number of training labels: the smaller of two is part of the larger.

    Raises:
        InputError: where an image holds several labels, or the metric is no share of images.
    """
    if not TASKS[study.task].one_class:
        raise InputError(f"--sizes is not for {study.task}", study.name, "leave it out")
    if not isinstance(METRICS[study.metric].statistic, ShareRight):
        shares = [name for name, metric in METRICS.items() if isinstance(metric.statistic, ShareRight)]
        remedy = f"choose one of {', '.join(shares)}"
        raise InputError(f"--sizes is not for the metric {study.metric}", "metric", remedy)
    return with_changes(study, target=with_changes(study.target, train_labels=count))
