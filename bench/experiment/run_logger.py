"""Do runs and keep what comes of them: each is opened in the store, shown while it goes on, and logged."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.core.runs import (
    ALSO,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.experiment.events import Evaluated, Message, OnEvent, RunEnded, RunStarted
from bench.experiment.plan import Plan
from bench.experiment.prediction_files import write_predictions
from bench.study.baselines import BASELINES
from bench.study_record.facts import flat, sizes
from bench.system.debugging import debugging
from bench.tracking.live_run import LiveRun
from bench.tracking.reader import BASELINE
from bench.tracking.store import RunStore
from bench.tracking.writer import NOTE

TRACEBACK = "traceback.txt"  # the artifact of a run that failed

if TYPE_CHECKING:
    from bench.data.dataset import Split
    from bench.experiment.run_executor import ExecutedRun
    from bench.training.problem import PruningCallback


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be done, what it is called ("seed 2, trial 3/8"), and what judges its evaluations."""

    spec: RunSpec
    name: str
    judge: "PruningCallback"
    tags: Mapping[str, Any]
    known: bool = False  # its result is stored; it takes part where the last bits of others depend on it


class Executor(Protocol):
    """What executes runs: `RunExecutor` and `BaselineExecutor`."""

    def run_together(
        self,
        specs: Sequence[RunSpec],
        parts: "Sequence[Split]",
        callbacks: "Sequence[PruningCallback | None]",
    ) -> "Iterator[ExecutedRun]":
        """Do several runs; give the results of those whose callback is not None, in order."""

    def forget(self, spec: RunSpec) -> None:
        """Remove what is kept of a run in flight: its result is stored."""


@dataclass(frozen=True, eq=False)
class RunLogger:
    """Does the runs of a plan.

    Args:
        emit: takes what happens.
        tags: what every run is tagged with.
    """

    plan: Plan
    store: RunStore
    emit: OnEvent
    executor: Executor
    tags: Mapping[str, Any]

    def do(self, runs: Sequence[PlannedRun], arm_run: str) -> Iterator["ExecutedRun"]:
        """Do runs, together where they can be, show them and log them; those that are known only help."""
        lives: list[LiveRun] = []
        with _ended_whatever_happens(lives):
            callbacks: list[PruningCallback | None] = []
            for run in runs:
                if not run.known:
                    lives.append(self._begin(run, arm_run))
                callbacks.append(None if run.known else self._watched(run, lives[-1]))
            splits = [self.plan.splits[run.spec.seed] for run in runs]
            together = self.executor.run_together([run.spec for run in runs], splits, callbacks)
            for run, finished in zip([run for run in runs if not run.known], together, strict=True):
                with tempfile.TemporaryDirectory() as folder:
                    lives[0].finish(finished.result, _files(finished, Path(folder)))
                del lives[0]
                self.executor.forget(run.spec)
                if finished.traceback and debugging():
                    self.emit(Message(finished.traceback))
                outcome = _outcome(finished.result, self.plan.study.metric)
                self.emit(RunEnded(run.spec.arm.strategy, run.name, outcome))
                yield finished

    def _begin(self, run: PlannedRun, arm_run: str) -> LiveRun:
        """Open a run in the store and show that it has begun."""
        spec, dataset = run.spec, self.plan.dataset
        self.emit(RunStarted(spec.arm.strategy, run.name))
        parts = self.plan.splits[spec.seed]
        settings = flat(self.plan.study.training.model_dump(mode="json"))
        params = {**settings, **sizes(parts), "split": parts.hash}
        tags = {**self.tags, **run.tags}
        tags[NOTE] = _note(run)
        live = self.store.start(spec, arm_run, run.name.partition("/")[0], params, tags)
        if spec.purpose is Purpose.FINAL:
            self.store.writer.log_dataset(live.run_id, dataset.name, dataset.digest, dataset.origin)
        return live

    def _watched(self, run: PlannedRun, live: LiveRun) -> "PruningCallback":
        """Return what judges a run's evaluations, and logs and shows them."""

        def after_evaluation(row: dict[str, float]) -> bool:
            live.log_evaluation(int(row["step"]), {k: v for k, v in row.items() if k != "step"})
            value = row[f"val/{self.plan.study.metric}"]
            self.emit(Evaluated(run.spec.arm.strategy, run.name, value))
            return run.judge(row)

        return after_evaluation


@contextmanager
def _ended_whatever_happens(lives: list[LiveRun]) -> Iterator[None]:
    """End runs in the store as KILLED if the process is interrupted or something unforeseen is raised."""
    try:
        yield
    except BaseException:
        for live in lives:
            live.abandon()
        raise


def _note(run: PlannedRun) -> str:
    """Return what MLflow shows as a run's description."""
    arm = run.spec.arm
    if BASELINE in run.tags:
        return f"Baseline of {arm.study}, {run.name}: {BASELINES[arm.strategy].summary}. Test is read once."
    params = run.spec.params.items()
    chosen = ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:.3g}'}" for name, value in params
    )
    if run.spec.purpose is Purpose.TRIAL:
        return f"Tuning of `{arm.strategy}` on {arm.study}, {run.name}: {chosen}. It never sees test."
    return (
        f"Final run of `{arm.strategy}` on {arm.study}, {run.name}: {chosen}. Test is read once. "
        "Its weights (frozen stages are the source's and left out) and predictions are among the artifacts; "
        "`stage/...` says how far each stage moved from its pretrained weights."
    )


def _outcome(result: RunResult, metric: str) -> str:
    if result.status is Status.FAILED:
        return f"failed: {result.error}"
    if result.status is Status.PRUNED:
        return f"pruned after {result.steps} steps, val {metric} {result.metrics[f'val/{metric}']:.3f}"
    seconds = result.train_seconds + result.eval_seconds
    return f"val {metric} {result.metrics[f'val/{metric}']:.3f} in {seconds:.1f} s"


def _files(finished: "ExecutedRun", folder: Path) -> dict[str, Path]:
    """Write what is kept of a final run to `folder`, and of a run that failed where it did."""
    if finished.traceback:
        file = folder / TRACEBACK
        file.write_text(finished.traceback, encoding="utf-8")
        return {file.name: file}
    if finished.predictions is None:
        return {}
    from safetensors.torch import save_file

    files = write_predictions(finished.predictions, folder)
    for name, record in finished.also.items():
        files |= write_predictions(record, folder / ALSO / name, f"{ALSO}{name}/")
    if not finished.weights:  # a baseline has none, and no matrix
        return files
    weights, plan = folder / "weights.safetensors", folder / "plan.txt"
    save_file({name: tensor.contiguous() for name, tensor in finished.weights.items()}, weights)
    plan.write_text(finished.plan, encoding="utf-8")
    return {file.name: file for file in (weights, plan)} | files
