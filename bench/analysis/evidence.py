"""What the store holds on one study, in the shape that analysis and report read."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.core.runs import Scores
from bench.study.metrics import metrics_of
from bench.study.schema import Study

COSTS = ("train_seconds", "eval_seconds", "cached_seconds", "feature_seconds", "steps")
TEMPERATURE = "val_temperature"  # that calibrates a final run's probabilities
CURVE_COLUMNS = ("strategy", "seed", "step", "learning_rate", "train_loss", "val_loss")
PREDICTION_COLUMNS = ("strategy", "seed", "image", "target", "prediction")
STAGE_COLUMNS = ("strategy", "seed", "stage", "depth", "change", "cka")


def run_columns(study: Study, there: Collection[str]) -> tuple[str, ...]:
    """Return the columns of final runs: of metrics those of the task, as far as they are there or needed."""
    return (
        *("study", "size", "similarity", "strategy", "seed", "status"),
        *_metric_columns(study, "val", there),
        *[name for name in (TEMPERATURE,) if name in there],
        *_metric_columns(study, "test", there),
        *(*COSTS, "trainable_parameters", "peak_memory_bytes", "run_key", "mlflow_run_id", "error"),
    )


def trial_columns(study: Study, there: Collection[str]) -> tuple[str, ...]:
    """Return the columns of tuning trials."""
    first = ("study", "strategy", "seed", "trial", "status")
    return (*first, *_metric_columns(study, "val", there), *COSTS, "run_key", "mlflow_run_id")


def _metric_columns(study: Study, part: str, there: Collection[str]) -> list[str]:
    names = [name for name in metrics_of(study.task) if name == study.metric or f"{part}_{name}" in there]
    return [f"{part}_{name}" for name in (*names, "loss")]


def canonical(strategies: Iterable[str]) -> list[str]:
    """Return the strategies in the one order of every table and figure: ours first, then others by name."""
    ours: tuple[str, ...] = Study.model_fields["strategies"].default
    return sorted(set(strategies), key=lambda name: (ours.index(name) if name in ours else len(ours), name))


def _tidy(frame: pd.DataFrame, columns: tuple[str, ...], by: list[str]) -> pd.DataFrame:
    """Return the frame with every column (absent ones empty), first ours in order, rows sorted."""
    frame = frame.reindex(columns=[*columns, *sorted(set(frame.columns) - set(columns))])
    order = {name: place for place, name in enumerate(canonical(frame["strategy"].unique()))}
    return frame.sort_values(
        ["strategy", *by], key=lambda c: c.map(order) if c.name == "strategy" else c, kind="stable"
    ).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of one study. Rows are sorted and absent columns added when it is built.

    Args:
        runs: a row per final run, failed ones included; `run_columns` and `param_<name>`.
        trials: a row per tuning trial; `trial_columns` and `param_<name>`.
        curves: a row per evaluation of a final run; `CURVE_COLUMNS` and `val_<metric>`.
        predictions: a row per final run and test image; targets and predictions are class names or numbers.
            For segmentation a row per final run, test image and class (target), with the pixels of its truth,
            its prediction, and their intersection. `group` is the name of an image's group, if it has one.
        provenance: JSON types: command, versions, device, digests, counts; shown in the report as it is.
        stages: how far each stage moved, a row per final run and stage (its name, and its depth from 0): the
            relative change of its weights ||w - w0|| / ||w0||, and the linear CKA (Kornblith et al. 2019) of
            what it puts out with the pretrained weights and with its own, on the same images. No change of
            what did not start there. Empty where nothing is known.
        images: small PNG pictures of test images by name, as far as they are at hand.
        scores: what each run ranks the test images by, by (strategy, seed); where the metric needs it.
        examples: PNG pictures: image, truth and prediction side by side, by (strategy, seed, name of file);
            for segmentation only.
        near_duplicates: of a val or test image: its name, its part, that of its near-duplicate, and the part.
        left_out: name and reason of each file of the data that could not be used.
        run_pages: what to put before a run's id to get the address of its page in MLflow; empty if unknown.
        overlap: share of its training images that a seed has in common with another, mean over final seeds.
        budget: the name of its preset.
        wanted: how many seeds each strategy needs, where that depends on what was found; else the study's.
        baselines: the same of the study's baselines, as if they were strategies; None: it has none.
        also: the same of further test sets by name, as if each were test.
        split: a row for each image that any seed trains on, or that is in val or test: `image`, `class`,
            `part`, and `seeds`, those that train on it. Empty where it was not recorded.
        side: pixels of the square that images are kept at; 0: not known.
        fit: how they were brought to it: crop, pad or stretch.
        deep: whether they have more than 8 bits, scaled by what is white in them.
        parts: the model's stages, input to output, and the names that everything in each begins with; empty
            where it was not recorded.
        fingerprint: of what was asked and of the runs that answer it; the same gives the same report.
    """

    study: Study
    runs: pd.DataFrame
    trials: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    stages: pd.DataFrame = field(default_factory=pd.DataFrame)
    images: Mapping[str, bytes] = field(default_factory=dict)
    scores: Mapping[tuple[str, int], Scores] = field(default_factory=dict)
    examples: Mapping[tuple[str, int, str], bytes] = field(default_factory=dict)
    near_duplicates: tuple[tuple[str, str, str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    run_pages: str = ""
    overlap: float = 0.0
    budget: str = "default"
    wanted: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    split: pd.DataFrame = field(default_factory=pd.DataFrame)
    side: int = 0
    fit: str = "crop"
    deep: bool = False
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    baselines: "Evidence | None" = None
    also: Mapping[str, "Evidence"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns, by in (
            ("runs", run_columns(self.study, self.runs.columns), ["seed"]),
            ("trials", trial_columns(self.study, self.trials.columns), ["seed", "trial"]),
            ("curves", CURVE_COLUMNS, ["seed", "step"]),
            ("predictions", PREDICTION_COLUMNS, ["seed", "image"]),
            ("stages", STAGE_COLUMNS, ["seed", "depth"]),
        ):
            object.__setattr__(self, name, _tidy(getattr(self, name), columns, by))

    @property
    def strategies(self) -> list[str]:
        """Every strategy that the study names or that has a run, in canonical order."""
        return canonical([*self.study.strategies, *self.runs["strategy"]])

    @property
    def command(self) -> str:
        """The command that ran the study, as a person can copy it."""
        return str(self.provenance.get("command") or f"bench run {self.study.name}")

    @property
    def date(self) -> str:
        """The day on which the last of its runs ended, as `2026-11-28`; empty where that is not known."""
        return str(self.provenance.get("date", ""))

    def wanted_seeds(self, strategy: str) -> int:
        """Return how many seeds a strategy needs, as far as that is known."""
        return self.wanted.get(strategy, self.study.most_seeds)

    @property
    def lacking(self) -> list[str]:
        """What of the study is not there or failed, a line for each strategy concerned."""
        lines = []
        for strategy in self.study.strategies:
            trials = int((self.trials["strategy"] == strategy).sum())
            own = self.runs[self.runs["strategy"] == strategy]
            seeds = self.wanted_seeds(strategy)
            missing = sorted(set(range(1, seeds + 1)) - set(own["seed"]))
            failed = sorted(own[own["status"] == "failed"]["seed"])
            wanted = self.study.tuning.trials * seeds
            parts = [f"{trials} of {wanted} trials"] * (trials < wanted)
            done = self.trials[(self.trials["strategy"] == strategy) & (self.trials["status"] == "done")]
            parts += ["no trial is done: its runs have the defaults"] * (bool(trials) and done.empty)
            parts += [f"no run of seed {', '.join(map(str, missing))}"] * bool(missing)
            parts += [f"seed {', '.join(map(str, failed))} failed"] * bool(failed)
            lines += [f"{strategy}: {'; '.join(parts)}"] * bool(parts)
        return lines

    @property
    def done(self) -> pd.DataFrame:
        """The final runs that ended well."""
        return self.runs[(self.runs["status"] == "done") & self.runs[f"test_{self.study.metric}"].notna()]


def of_done(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows (of curves, predictions, stages) that belong to a final run that ended well."""
    key = ["strategy", "seed"]
    done = pd.MultiIndex.from_frame(evidence.done[key])
    return rows[pd.MultiIndex.from_frame(rows[key]).isin(done)]


def group_names(known: pd.DataFrame, images: Iterable[str]) -> tuple[str, ...]:
    """Return the name of each image's group from rows of predictions; empty for an image without one."""
    if "group" not in known:
        return ()
    by_image = known.dropna(subset="group").drop_duplicates("image").set_index("image")["group"]
    return tuple(by_image.astype(str).reindex(list(images)).fillna(""))


def tuning_seconds(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return what each trial costs, whatever happened to be stored before tuning began.

    That is what it takes with its frozen features at hand, and computing these for the first trial of its
    seed that reads them. Equal seconds of features tell that they are the same stored features.
    """
    spent = trials["train_seconds"].astype(float) + trials["eval_seconds"].astype(float)
    cached = trials["cached_seconds"].astype(float).fillna(spent).fillna(0.0)  # not kept in earlier runs
    computed = trials["feature_seconds"].astype(float).fillna(0.0)
    first = ~trials[["strategy", "seed"]].assign(features=computed).duplicated()
    return cached + computed.where(first, 0.0)
