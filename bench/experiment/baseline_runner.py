"""Do the baselines of a study: without tuning, in seconds, logged as runs below an arm's run of their own."""

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.runs import Arm, RunResult, RunSpec, Status
from bench.data.dataset import Split
from bench.experiment.events import Event, Message, RunEnded
from bench.experiment.open_study import OpenStudy
from bench.experiment.run_executor import FAULTS, ExecutedRun
from bench.experiment.run_logger import PlannedRun, RunLogger
from bench.study.metrics import metrics_of
from bench.tracking.reader import BASELINE
from bench.training import baselines

if TYPE_CHECKING:
    from bench.training.problem import PruningCallback
    from bench.training.setup import TrainingSetup


@dataclass(frozen=True, eq=False)
class BaselineExecutor:
    """Executes the runs of baselines, as `RunExecutor` does those of strategies.

    Args:
        setup: with a head that reads pooled features.
    """

    setup: "TrainingSetup"

    def run_together(
        self, specs: Sequence[RunSpec], parts: Sequence[Split], _callbacks: "Sequence[PruningCallback | None]"
    ) -> Iterator[ExecutedRun]:
        """Do several runs, one by one; a failure is a result."""
        for spec, split in zip(specs, parts, strict=True):
            try:
                yield self._run(spec, split)
            except FAULTS as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
                failed = RunResult(spec, Status.FAILED, environment=self.setup.environment, error=reason)
                yield ExecutedRun(failed, traceback="".join(traceback.format_exception(error)))

    def forget(self, spec: RunSpec) -> None:
        """Forget nothing: no run of seconds has a checkpoint."""

    def _run(self, spec: RunSpec, parts: Split) -> ExecutedRun:
        """Fit a baseline and read test, once."""
        setup, names = self.setup, metrics_of(self.setup.study.task)
        started = time.perf_counter()
        fitted = baselines.fit(spec.arm.strategy, setup, parts, spec.seed)
        trained = time.perf_counter()
        targets, metrics = setup.targets.calibrated(fitted.predict, parts.val)
        metrics = {**targets.score(fitted.predict(parts.val), parts.val, names), **metrics}
        metrics = {f"val/{name}": value for name, value in metrics.items()}
        spent, features = time.perf_counter() - started, fitted.sight.features
        on_features = sum(features.take_seconds()) if features else 0.0
        computing = features.computing_seconds if features else 0.0
        predictions = fitted.predict(parts.test)
        scores = targets.score(predictions, parts.test, names)
        result = RunResult(
            spec,
            Status.DONE,
            metrics=metrics | {f"test/{name}": value for name, value in scores.items()},
            train_seconds=trained - started,
            eval_seconds=started + spent - trained,
            cached_seconds=max(0.0, spent - on_features),
            feature_seconds=computing,
            environment=setup.environment,
        )
        record = targets.record(setup.dataset, predictions, parts.test, fitted.predict)
        return ExecutedRun(result, predictions=record.with_groups(setup.dataset, parts.test))


def do_baseline(study: OpenStudy, arm: Arm, study_run: str) -> None:
    """Do the runs of a baseline that are missing; wait for another command that is at them.

    Args:
        study: in this process.
        arm: the baseline's.
        study_run: the id of the study's run in the store.
    """
    state, count = study.baselines[arm.strategy], study.plan.study.looks[0]
    with study.machine.claims.alone("baseline", arm.key):
        missing = [run for run in study.plan.runs_of_baseline(arm) if not state.has_ended(run)]
        tags: dict[str, Any] = {**study.tags, BASELINE: "yes", **state.tags}
        arm_run = study.store.open_arm(study_run, arm, tags, {"strategy": arm.strategy})
        own = {BASELINE: "yes", **state.tags}
        runs = [PlannedRun(run, f"seed {run.seed}/{count}", lambda _row: True, own) for run in missing]
        executor = BaselineExecutor(study.setup_of_pooled_features)
        logger = RunLogger(study.plan, study.store, _as_lines(study), executor, study.tags)
        status: Any = "KILLED"
        try:
            for _ in logger.do(runs, arm_run):
                pass
            status = "FINISHED"
        finally:
            study.store.writer.close(arm_run, status)


def _as_lines(study: OpenStudy) -> Any:
    """Return what shows how runs ended as lines: they have no part in the estimate of the time left."""

    def emit(event: Event) -> None:
        if isinstance(event, RunEnded):
            study.emit(Message(f"{event.strategy}: {event.run}: {event.outcome}"))

    return emit
