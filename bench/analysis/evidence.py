"""What the store holds on one study, in the shape that analysis and report read."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bench.study import Study

RUN_COLUMNS = (
    *("study", "size", "similarity", "strategy", "seed", "status"),
    *(
        "val_accuracy",
        "val_balanced_accuracy",
        "val_loss",
        "test_accuracy",
        "test_balanced_accuracy",
        "test_loss",
    ),
    *("train_seconds", "eval_seconds", "epochs", "trainable_parameters", "peak_memory_bytes"),
    *("run_key", "mlflow_run_id", "error"),
)
TRIAL_COLUMNS = (
    *("study", "strategy", "trial", "status", "val_accuracy", "val_balanced_accuracy", "val_loss"),
    *("train_seconds", "eval_seconds", "epochs", "run_key", "mlflow_run_id"),
)
CURVE_COLUMNS = ("strategy", "seed", "epoch", "learning_rate", "train_loss", "val_loss")
PREDICTION_COLUMNS = ("strategy", "seed", "image", "target", "prediction")


def canonical(strategies: Iterable[str]) -> list[str]:
    """Return the strategies in the one order of every table and figure: ours first, then others by name."""
    ours: tuple[str, ...] = Study.model_fields["strategies"].default
    return sorted(set(strategies), key=lambda name: (ours.index(name) if name in ours else len(ours), name))


def _tidy(frame: pd.DataFrame, columns: tuple[str, ...], by: list[str]) -> pd.DataFrame:
    """Return the frame with every column (absent ones empty), first ours in order, rows sorted."""
    frame = frame.reindex(columns=[*columns, *sorted(set(frame.columns) - set(columns))])
    order = {name: place for place, name in enumerate(canonical(frame["strategy"]))}
    return frame.sort_values(
        ["strategy", *by], key=lambda c: c.map(order) if c.name == "strategy" else c, kind="stable"
    ).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of one study. Rows are sorted and absent columns added when it is built.

    Args:
        runs: a row per final run, failed ones included; `RUN_COLUMNS` and `param_<name>`.
        trials: a row per tuning trial; `TRIAL_COLUMNS` and `param_<name>`.
        curves: a row per epoch of a final run; `CURVE_COLUMNS` and `val_<metric>`.
        predictions: a row per final run and test image; targets and predictions are class names or numbers.
        provenance: JSON types: command, versions, device, digests, counts; shown in the report as it is.
    """

    study: Study
    runs: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns, by in (
            ("runs", RUN_COLUMNS, ["seed"]),
            ("trials", TRIAL_COLUMNS, ["trial"]),
            ("curves", CURVE_COLUMNS, ["seed", "epoch"]),
            ("predictions", PREDICTION_COLUMNS, ["seed", "image"]),
        ):
            object.__setattr__(self, name, _tidy(getattr(self, name), columns, by))

    @property
    def strategies(self) -> list[str]:
        """Every strategy that the study names or that has a run, in canonical order."""
        return canonical([*self.study.strategies, *self.runs["strategy"]])

    @property
    def done(self) -> pd.DataFrame:
        """The final runs that ended well."""
        return self.runs[(self.runs["status"] == "done") & self.runs[f"test_{self.study.metric}"].notna()]


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictions of the done runs as one table.

    Args:
        rows: (strategy, seed) to row number.
        correct: float, shape (R, N).
        targets: the N class names.
        dropped: test images left out because some run has no prediction for them.
    """

    rows: dict[tuple[str, int], int]
    correct: np.ndarray
    targets: np.ndarray
    dropped: int


def answers(evidence: Evidence) -> Answers:
    """Return which done run is right on which image, for the images that all of them have."""
    key, predictions = ["strategy", "seed"], evidence.predictions
    done = pd.MultiIndex.from_frame(evidence.done[key])
    known = predictions[pd.MultiIndex.from_frame(predictions[key]).isin(done)]
    right = (known["target"] == known["prediction"]).astype(float)
    # not pivot_table, which would average over an image that is named twice
    table = known.assign(right=right).pivot(index=key, columns="image", values="right")  # noqa: PD010
    complete = table.dropna(axis="columns")
    targets = known.drop_duplicates("image").set_index("image")["target"].reindex(complete.columns)
    rows = {(str(strategy), int(seed)): row for row, (strategy, seed) in enumerate(complete.index)}
    return Answers(
        rows,
        complete.to_numpy(dtype=float),
        targets.astype(str).to_numpy(dtype=str),
        table.shape[1] - complete.shape[1],
    )
