"""What each strategy reached and what it cost: the rows of a summary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.comparisons import Place
from bench.analysis.evidence import Evidence, tuning_seconds
from bench.analysis.variance import Crossed, Estimate
from bench.study.metrics import METRICS


@dataclass(frozen=True)
class Result:
    """What one strategy reached and what it cost. None: no run is done, or nothing is stored.

    Args:
        done, failed, missing: final runs; together the study's seeds.
        test: mean test metric over seeds with its interval.
        test_mean, val_mean: the same mean, and the one that selects, from the runs' own metrics.
        place: against the best.
        letters: of its groups: strategies that share none are shown to differ; empty without a result.
        train_seconds, eval_seconds: mean of a final run, with what it spent on frozen features.
        cached_seconds, uncached_seconds: mean of training and evaluation of a final run that finds its frozen
            features, and of one that has to compute them; the same where nothing is frozen.
        tuning_seconds: training and evaluation of all trials of a seed, with frozen features computed once;
            mean over seeds.
        trials: number of trials by status.
        errors: distinct reasons of failed runs.
        undertrained: by how much val still rose, if by more than the smallest difference that matters.
    """

    strategy: str
    place: Place
    letters: str
    done: int
    failed: int
    missing: int
    test: Estimate | None
    test_mean: float | None
    val_mean: float | None
    train_seconds: float | None
    eval_seconds: float | None
    cached_seconds: float | None
    uncached_seconds: float | None
    tuning_seconds: float
    trials: Mapping[str, int]
    trainable_parameters: int | None
    errors: tuple[str, ...]
    undertrained: float | None = None

    @property
    def seconds(self) -> float | None:
        """What it takes to have it: all trials of a seed, of which the best is the final run."""
        return None if self.uncached_seconds is None else max(self.uncached_seconds, self.tuning_seconds)


def by_validation(evidence: Evidence) -> list[str]:
    """Return the strategies with a result, the best mean validation metric first; equal ones in our order."""
    means = evidence.done.groupby("strategy")[f"val_{evidence.study.metric}"].mean().dropna().to_dict()
    sign = METRICS[evidence.study.metric].sign
    return sorted(
        (name for name in evidence.strategies if name in means), key=lambda name: -sign * means[name]
    )


def result_of(
    evidence: Evidence,
    rows: Mapping[str, Mapping[int, int]],
    crossed: Crossed | None,
    name: str,
    place: Place,
) -> Result:
    """Return what a strategy reached and what it cost."""
    runs = evidence.runs[evidence.runs["strategy"] == name]
    done = evidence.done[evidence.done["strategy"] == name]
    trials = evidence.trials[evidence.trials["strategy"] == name]
    cached, uncached = _costs(done)
    parameters = _mean(done["trainable_parameters"])
    return Result(
        strategy=name,
        place=place,
        letters="",
        done=len(done),
        failed=len(runs) - len(done),
        missing=max(0, evidence.wanted_seeds(name) - len(runs)),
        test=crossed.estimate(list(rows[name].values())) if crossed and name in rows else None,
        test_mean=_mean(done[f"test_{evidence.study.metric}"]),
        val_mean=_mean(done[f"val_{evidence.study.metric}"]),
        train_seconds=_mean(done["train_seconds"]),
        eval_seconds=_mean(done["eval_seconds"]),
        cached_seconds=cached,
        uncached_seconds=uncached,
        tuning_seconds=float(tuning_seconds(trials).sum()) / max(1, trials["seed"].nunique()),
        trials={s: int((trials["status"] == s).sum()) for s in ("done", "pruned", "failed")},
        trainable_parameters=None if parameters is None else round(parameters),
        errors=tuple(sorted(set(runs.loc[runs["status"] == "failed", "error"].dropna().astype(str)))),
    )


def _costs(done: pd.DataFrame) -> tuple[float | None, float | None]:
    """Return the mean seconds of a run with its frozen features at hand, and without."""
    spent = done["train_seconds"].astype(float) + done["eval_seconds"].astype(float)
    cached = done["cached_seconds"].astype(float).fillna(spent)  # runs of before it was kept
    return _mean(cached), _mean(cached + done["feature_seconds"].astype(float).fillna(0.0))


def _mean(values: "pd.Series[Any]") -> float | None:
    mean = float(values.astype(float).mean()) if len(values) else float("nan")
    return None if np.isnan(mean) else mean
