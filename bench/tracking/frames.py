"""Stored runs as tables: one tidy row per run, per trial, per epoch. Pure; the store reads, this arranges."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.spec import Status, Value

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("train_seconds", "eval_seconds", "epochs", "trainable_parameters", "peak_memory_bytes")
COUNTS = ("epochs", "trainable_parameters", "peak_memory_bytes")  # whole numbers, empty where there is none
FIRST = ("study", "size", "similarity", "strategy", "seed")
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
    """

    run_id: str
    key: str
    status: Status
    metrics: Mapping[str, float]
    params: Mapping[str, Value]
    tags: Mapping[str, str] = field(default_factory=dict)


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


def by_trial(runs: Iterable[FoundRun], arm_keys: Iterable[str]) -> list[FoundRun]:
    """Return the newest run for each arm and trial number, by arm and number.

    Args:
        runs: newest first; those without the tag `trial` are no trials of a study.
        arm_keys: those wanted, in the order wanted.
    """
    order = {key: index for index, key in enumerate(arm_keys)}
    newest: dict[tuple[int, int], FoundRun] = {}
    for run in runs:
        if (arm := run.tags.get("bench.arm_key")) in order and "trial" in run.tags:
            newest.setdefault((order[arm], int(run.tags["trial"])), run)
    return [run for _, run in sorted(newest.items(), key=lambda item: item[0])]


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
    return frame.astype(counts | {"train_seconds": "float64", "eval_seconds": "float64"})


def curves(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return a row for each run and epoch: strategy, seed, epoch, then a column for each metric."""
    import pandas as pd

    first = ["strategy", "seed", "epoch"]
    return pd.DataFrame(rows, columns=[*first, *sorted(set(_names(rows)) - set(first))])


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
