"""Stored runs as tables: a tidy row per run, trial or evaluation. Pure; the store reads, this arranges."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench.core.runs import SEES_TEST, Status, Value
from bench.study.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

SECONDS = ("train_seconds", "eval_seconds", "cached_seconds", "feature_seconds")
COSTS = (*SECONDS, "steps", "trainable_parameters", "peak_memory_bytes")
COUNTS = ("steps", "trainable_parameters", "peak_memory_bytes")  # whole numbers, empty where there is none
FIRST = ("study", "size", "similarity", "strategy", "seed")
STAGE = "stage/"  # prefix of what is known of a stage: `stage/<depth>-<name>/<what>`
PREDICTIONS = (
    *("image", "target", "prediction", "log_loss", "calibrated_probability"),
    *("truth", "predicted", "intersection", "group"),
)
LAST = ("run_key", "mlflow_run_id", "error")


@dataclass(frozen=True)
class FoundRun:
    """A run that has ended, as the store remembers it.

    Args:
        run_id: MLflow's id.
        key: the key of its `RunSpec`.
        status: how it ended.
        metrics: the final values: `split/metric`, and the costs (`train_seconds`, ...).
        params: the hyperparameters of its `RunSpec`, with their types.
        tags: all tags.
        artifacts: the address of its files.
        curve_metrics: the names of what was measured at each evaluation.
        ended: milliseconds since 1970; 0: not known.
    """

    run_id: str
    key: str
    status: Status
    metrics: Mapping[str, float]
    params: Mapping[str, Value]
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: str = ""
    curve_metrics: frozenset[str] = frozenset()
    ended: int = 0

    @property
    def failed_in_passing(self) -> bool:
        """Whether it failed for a reason that may be gone, such as a broken driver."""
        return self.status is Status.FAILED and "bench.diverged" not in self.tags


@dataclass(frozen=True)
class FoundStudy:
    """A study's run, as the store remembers it.

    Args:
        run_id: MLflow's id.
        tags: all tags.
        artifacts: the address of its files.
        ended: milliseconds since 1970; None while it goes on.
        status: MLflow's.
    """

    run_id: str
    tags: Mapping[str, str]
    artifacts: str
    ended: int | None
    status: str = "FINISHED"


def by_key(runs: Iterable[FoundRun], keys: Collection[str]) -> dict[str, FoundRun]:
    """Return one run for each key: DONE goes before FAILED, then the newest.

    Args:
        runs: newest first.
        keys: those wanted; the result follows their order.
    """
    best: dict[str, FoundRun] = {}
    for run in runs:
        known = best.get(run.key)
        if known is None or (known.status is not Status.DONE and run.status is Status.DONE):
            best[run.key] = run
    return {key: best[key] for key in keys if key in best}


def trials_by_seed(runs: Iterable[FoundRun]) -> dict[int, list[FoundRun]]:
    """Return an arm's trials by seed, the newest run of each number, in the order of numbers.

    One that failed in passing is taken only where there is no other.

    Args:
        runs: newest first; those without the tag `trial` are no trials of a study.
    """
    newest: dict[tuple[int, int], FoundRun] = {}
    for run in runs:
        if "trial" in run.tags:
            place = int(run.tags["seed"]), int(run.tags["trial"])
            if place not in newest or (newest[place].failed_in_passing and not run.failed_in_passing):
                newest[place] = run
    found: dict[int, list[FoundRun]] = {}
    for (seed, _), run in sorted(newest.items(), key=lambda item: item[0]):
        found.setdefault(seed, []).append(run)
    return found


def by_seed(runs: Iterable[FoundRun], seeds: Iterable[int]) -> list[FoundRun]:
    """Return one run for each seed that has any, in the order of seeds: DONE before FAILED, then the newest.

    Args:
        runs: final runs of one arm with the same hyperparameters, newest first.
        seeds: those wanted.
    """
    runs = list(runs)
    order = {str(seed): place for place, seed in enumerate(seeds)}
    keys = {run.key: order[run.tags["seed"]] for run in runs if run.tags["seed"] in order}
    return list(by_key(runs, sorted(keys, key=keys.__getitem__)).values())


def best_params(trials: Iterable[FoundRun], metric: str) -> str | None:
    """Return the hyperparameters of the best trial of a seed, as its tag has them; None if none is DONE.

    The one with the best `val/<metric>`; among equals the lower loss, then the earlier trial.
    """
    sign = METRICS[metric].sign

    def rank(run: FoundRun) -> tuple[float, float, int]:
        return sign * run.metrics[f"val/{metric}"], -run.metrics.get("val/loss", 0.0), -int(run.tags["trial"])

    done = [run for run in trials if run.status is Status.DONE]
    return max(done, key=rank).tags["bench.params"] if done else None


def table(runs: Iterable[FoundRun], *extra: str) -> "pd.DataFrame":
    """Return a row for each run.

    The columns of `runs.csv`: study, size, similarity, strategy, seed, `extra` (whole numbers in tags),
    status, `val_<metric>`, `test_<metric>`, costs (seconds, counts, bytes), run_key, mlflow_run_id, error;
    then `param_<name>` for each hyperparameter.
    """
    import pandas as pd

    rows = [_row(run, extra) for run in runs]
    metrics = [n for split in ("val_", "test_") for n in _names(rows) if n.startswith(split)]
    params = sorted(n for n in _names(rows) if n.startswith("param_"))
    frame = pd.DataFrame(rows, columns=[*FIRST, *extra, "status", *metrics, *COSTS, *LAST, *params])
    counts = dict.fromkeys((*COUNTS, "seed", *extra), "Int64")
    return frame.astype(counts | dict.fromkeys(SECONDS, "float64"))


def with_further(run: FoundRun, below: str) -> FoundRun:
    """Return a run with its scores on a further test set in the place of those on test.

    Args:
        run: a final one.
        below: what stands before the names of those scores.
    """
    kept = {name: value for name, value in run.metrics.items() if not name.startswith(SEES_TEST)}
    further = {n.removeprefix(below): v for n, v in run.metrics.items() if n.startswith(below)}
    return replace(run, metrics=kept | {f"test/{name}": value for name, value in further.items()})


def curves(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return a row for each run and evaluation: strategy, seed, step, then a column for each metric."""
    import pandas as pd

    first = ["strategy", "seed", "step"]
    return pd.DataFrame(rows, columns=[*first, *sorted(set(_names(rows)) - set(first))])


def stages(runs: Iterable[FoundRun]) -> "pd.DataFrame":
    """Return how far stages moved, a row for each run and stage: strategy, seed, stage, depth, change, cka.

    They are the metrics `stage/<depth>-<name>/change` and `.../cka`; what was not measured is empty.
    """
    import pandas as pd

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for name, value in run.metrics.items():
            if name.startswith(STAGE):
                place, _, what = name.removeprefix(STAGE).rpartition("/")
                depth, _, stage = place.partition("-")
                who = {"strategy": run.tags["strategy"], "seed": int(run.tags["seed"])}
                row = rows.setdefault((run.run_id, place), {**who, "stage": stage, "depth": int(depth)})
                row[what] = value
    return pd.DataFrame(rows.values(), columns=["strategy", "seed", "stage", "depth", "change", "cka"])


def column(metric: str) -> str:
    """Return the column of a metric: `val/accuracy` is in `val_accuracy`."""
    return metric.replace("/", "_")


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({name for row in rows for name in row})


def _row(run: FoundRun, extra: Iterable[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: run.tags.get(name, "") for name in FIRST}
    row |= {name: int(run.tags[name]) for name in ("seed", *extra)}
    row |= {column(n): v for n, v in run.metrics.items() if n.startswith(("val/", "test/"))}
    row |= {name: run.metrics.get(name) for name in COSTS}
    row |= {f"param_{name}": value for name, value in run.params.items()}
    row |= {"run_key": run.key, "mlflow_run_id": run.run_id, "error": run.tags.get("bench.error", "")}
    return {**row, "status": run.status.value}
