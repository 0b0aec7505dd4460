"""Do one run: `RunSpec` to `RunResult`. The only place where a run happens."""

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bench.core.runs import (
    ALSO,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.data.dataset import Dataset, Split
from bench.data.further_tests import FurtherTest
from bench.study.metrics import METRICS, metrics_of
from bench.system.notices import warn_once
from bench.training import device_memory
from bench.training.cached_features import Features
from bench.training.checkpoints import CheckpointFile
from bench.training.inputs import batches
from bench.training.phases import train_as_planned, train_together
from bench.training.problem import (
    DivergedError,
    PruningCallback,
    Row,
    Trained,
    TrainingProblem,
    predict,
    truncate,
)
from bench.training.refit import problem_of_refit
from bench.training.setup import TrainingSetup
from bench.training.targets.base import PredictionRecord
from bench.training.weight_drift import IMAGES, DriftReference

log = logging.getLogger(__name__)
FAULTS = (DivergedError, RuntimeError, ValueError)  # out of memory, and whatever else torch refuses
NONE: Mapping[str, FurtherTest] = {}


@dataclass(frozen=True, eq=False)
class ExecutedRun:
    """A run's result, and of a final run that is done also its weights and predictions.

    Args:
        weights: the tensors that the plan let change; the others are the source's.
        predictions: what is kept of those for the test images.
        plan: what of the model it trained, in words.
        traceback: of a run that failed: where.
        also: predictions for further test sets, by name.
    """

    result: RunResult
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: PredictionRecord | None = None
    plan: str = ""
    traceback: str = ""
    also: Mapping[str, PredictionRecord] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _FinishedTrial:
    """A trial that went to its end, with its model."""

    spec: RunSpec
    problem: TrainingProblem
    trained: Trained

    @property
    def rank(self) -> tuple[float, float]:
        """By which the tuner prefers it; of equals the earlier."""
        row, metric = self.trained.best_row, METRICS[self.problem.metric]
        return metric.sign * row[f"val/{metric.name}"], -row["val/loss"]

    def is_of(self, spec: RunSpec) -> bool:
        """Say whether it is a trial of the same arm and seed."""
        return (self.spec.arm.key, self.spec.seed) == (spec.arm.key, spec.seed)


class RunExecutor:
    """Executes the runs of a study on one device.

    Args:
        setup: builds what they train on.
        also_test: further test sets, by name.
    """

    def __init__(self, setup: TrainingSetup, also_test: Mapping[str, FurtherTest] = NONE) -> None:
        self.setup, self.study, self.also_test = setup, setup.study, also_test
        self._images = {name: setup.images_of(test.dataset) for name, test in also_test.items()}
        self._reference: DriftReference | None = None
        self._best: _FinishedTrial | None = None  # of the arm and seed that is tuned

    def run(self, spec: RunSpec, parts: Split, callback: PruningCallback = lambda _row: True) -> ExecutedRun:
        """Train and evaluate; read test, once, in a final run. A failure is a result, not an error.

        Where the device has no room for a batch, it is computed in two micro-batches, or four, ...: the
        gradient is that of the whole batch. A run that was begun before goes on from its checkpoint.
        """
        once, micro_batches = _ask_once(callback), 1
        while True:
            device_memory.reset_peak(self.setup.device)
            executed = self._attempt(spec, parts, once, micro_batches)
            if executed is not None:
                return executed
            micro_batches *= 2
            what, self._best = _in_micro_batches(micro_batches), None
            warn_once(log, f"{spec.arm.strategy}: the device's memory is full; {what}")
            self.setup.forget_features()
            device_memory.release(self.setup.device)

    def _attempt(
        self, spec: RunSpec, parts: Split, callback: PruningCallback, micro_batches: int
    ) -> ExecutedRun | None:
        """Execute a run with each batch in so many micro-batches; None: memory is full, try more.

        A function of its own: once it has returned, nothing holds the model that found no room.
        """
        try:
            if (best := self._take_best(spec)) is not None:
                trained = truncate(best.trained, best.problem.metric, callback)
                return self._finish(spec, parts, best.problem, trained)
            problem = replace(self.setup.problem(spec, parts), micro_batches=micro_batches)
            trained = train_as_planned(problem, callback, _checkpoint(spec))
            self._keep_best(_FinishedTrial(spec, problem, trained))
            return self._finish(spec, parts, problem, trained)
        except FAULTS as error:
            if device_memory.is_full(error) and 4 * micro_batches <= self.study.training.batch_size:
                return None
            return self._failed(spec, error)

    def _keep_best(self, trial: "_FinishedTrial") -> None:
        """Keep what the best trial of a seed trained: the final run is the same training, and reads test."""
        if trial.spec.purpose is Purpose.FINAL or trial.trained.stopped:
            return
        if self._best is None or not self._best.is_of(trial.spec) or trial.rank > self._best.rank:
            self._best = trial

    def _take_best(self, spec: RunSpec) -> "_FinishedTrial | None":
        """Return the trial that trained what a final run is to train, if it is at hand; it is so once."""
        if spec.purpose is Purpose.TRIAL:
            return None
        best, self._best = self._best, None
        return best if best and best.is_of(spec) and best.spec.params == spec.params else None

    def forget(self, spec: RunSpec) -> None:
        """Remove a run's checkpoint: its result is stored."""
        _checkpoint(spec).remove()

    def run_together(
        self, specs: Sequence[RunSpec], parts: Sequence[Split], callbacks: Sequence[PruningCallback | None]
    ) -> Iterator[ExecutedRun]:
        """Do several runs, as one computation where they train only heads; give the results in order.

        The callbacks are asked in turn, run by run, as if the runs were done in turn. Where one is None the
        result is known already and not given: the run only takes part where the others' last bits depend on
        it.
        """
        trained = self._train_together(specs, parts) if len(specs) > 1 else None
        if trained is None:  # each on its own: one that fails leaves the others alone
            for spec, split, callback in zip(specs, parts, callbacks, strict=True):
                if callback:
                    yield self.run(spec, split, callback)
            return
        for spec, split, (problem, result), callback in zip(specs, parts, trained, callbacks, strict=True):
            if not callback:
                continue
            try:
                yield self._finish(spec, split, problem, truncate(result, problem.metric, callback))
            except FAULTS as error:
                yield self._failed(spec, error)

    def _train_together(
        self, specs: Sequence[RunSpec], parts: Sequence[Split]
    ) -> list[tuple[TrainingProblem, Trained | DivergedError]] | None:
        """Train several runs as one computation; None if they can't be."""
        device_memory.reset_peak(self.setup.device)
        try:
            problems = [self.setup.problem(spec, split) for spec, split in zip(specs, parts, strict=True)]
            trained = train_together(problems)
        except FAULTS as error:
            name, reason = specs[0].arm.strategy, _first_line(error)
            warn_once(log, f"{name}: {len(specs)} runs can't be trained together ({reason}); one by one")
            return None
        return None if trained is None else list(zip(problems, trained, strict=True))

    def _finish(self, spec: RunSpec, parts: Split, problem: TrainingProblem, trained: Trained) -> ExecutedRun:
        if spec.purpose is Purpose.TRIAL or trained.stopped:
            status = Status.PRUNED if trained.stopped else Status.DONE
            return ExecutedRun(self._result(spec, status, problem, trained, {}))
        targets, of_val = problem.targets.calibrated(lambda part: predict(problem, part), problem.val)
        if self.study.training.refit:
            problem, trained = self._refitted(spec, parts, problem, trained)
        problem = replace(problem, targets=targets)
        predictions, scores = self._test(problem, parts.test)
        also, further = self._test_further(problem)
        scores |= further
        scores |= {f"val/{name}": value for name, value in of_val.items()}
        result = self._result(spec, Status.DONE, problem, trained, scores)
        result = replace(result, metrics={**result.metrics, **self._moved(problem)})
        in_words = self.setup.plan_text(spec.arm, spec.params)
        return ExecutedRun(result, trained.best, predictions, in_words, also=also)

    def _refitted(
        self, spec: RunSpec, parts: Split, problem: TrainingProblem, trained: Trained
    ) -> tuple[TrainingProblem, Trained]:
        """Train anew on train and val, as long as was best on val; of val the training before is reported."""
        both, steps = np.concatenate([parts.train, parts.val]), int(trained.best_row["step"])
        again = problem_of_refit(self.setup, spec, both, steps)
        again = replace(again, val=problem.val, micro_batches=problem.micro_batches)
        refitted = train_as_planned(replace(again, val=both[:0]))
        return again, replace(
            trained,
            best=refitted.best,
            train_seconds=trained.train_seconds + refitted.train_seconds,
            eval_seconds=trained.eval_seconds + refitted.eval_seconds,
        )

    def _moved(self, problem: TrainingProblem) -> dict[str, float]:
        """Return how far each stage moved; what can't be measured is left out, as it decides nothing."""
        if self._reference is None:  # one for all runs: every seed validates on the same images
            count = min(IMAGES, len(problem.val))
            chosen = problem.val[np.linspace(0, len(problem.val) - 1, count).astype(int)]
            size = self.setup.images.eval_batch
            self._reference = DriftReference(
                self.setup.frozen, lambda: map(self.setup.images.evaluate, batches(chosen, size))
            )
        try:
            return self._reference.measure(problem.model, problem.plan)
        except FAULTS as error:
            warn_once(log, f"how far the stages moved could not be measured: {_first_line(error)}")
            return {}

    def _failed(self, spec: RunSpec, error: Exception) -> ExecutedRun:
        result = RunResult(
            spec,
            Status.FAILED,
            environment=self.setup.environment,
            error=_first_line(error),
            diverged=isinstance(error, DivergedError),
        )
        return ExecutedRun(result, traceback="".join(traceback.format_exception(error)))

    def _test(self, problem: TrainingProblem, test: np.ndarray) -> tuple[PredictionRecord, dict[str, float]]:
        """Return what is kept of the predictions for the test images, and their scores."""
        if isinstance(problem.inputs, Features) and not problem.inputs.prepare_evaluation(test):
            # the store can't hold them
            problem = replace(problem, inputs=self.setup.images, forward=problem.model)
        record, scores = self._predicted(problem, self.setup.dataset, test)
        return record, {f"test/{name}": value for name, value in scores.items()}

    def _test_further(self, problem: TrainingProblem) -> tuple[dict[str, PredictionRecord], dict[str, float]]:
        """Return the same for each further test set, of which no features are stored."""
        records: dict[str, PredictionRecord] = {}
        scores: dict[str, float] = {}
        for name, test in self.also_test.items():
            targets = problem.targets.of(test.dataset)
            seen = replace(problem, inputs=self._images[name], forward=problem.model, targets=targets)
            records[name], own = self._predicted(seen, test.dataset, test.indices)
            scores |= {f"{ALSO}{name}/{metric}": value for metric, value in own.items()}
        return records, scores

    def _predicted(
        self, problem: TrainingProblem, dataset: Dataset, indices: np.ndarray
    ) -> tuple[PredictionRecord, dict[str, float]]:
        """Return what is kept of the predictions for images of a data set, and their scores."""
        predictions = predict(problem, indices)
        scores = problem.targets.score(predictions, indices, metrics_of(self.study.task))
        if not np.isfinite(list(scores.values())).all():
            raise DivergedError("a score on test is not finite")
        with torch.inference_mode():
            record = problem.targets.record(
                dataset,
                predictions,
                indices,
                lambda some: problem.forward(problem.inputs.evaluate(some)),
            )
        return record.with_groups(dataset, indices), scores

    def _result(
        self,
        spec: RunSpec,
        status: Status,
        problem: TrainingProblem,
        trained: Trained,
        scores: Mapping[str, float],
    ) -> RunResult:
        """Put the result together; what a run spent on frozen features is part of its cost."""
        metrics = {
            **{n: v for n, v in trained.best_row.items() if n.partition("/")[0] in {"train", "val"}},
            **scores,
        }
        stored, computing = (0.0, 0.0), 0.0
        if isinstance(problem.inputs, Features):
            stored, computing = problem.inputs.take_seconds(), problem.inputs.computing_seconds
        return RunResult(
            spec,
            status,
            metrics=metrics,
            curve=tuple(trained.curve),
            best_step=int(trained.best_row["step"]),
            steps=0 if problem.plan.is_solved else trained.steps,
            train_seconds=trained.train_seconds + stored[0],
            eval_seconds=trained.eval_seconds + stored[1],
            cached_seconds=trained.train_seconds + trained.eval_seconds,
            feature_seconds=computing,
            trainable_parameters=sum(p.numel() for p in problem.model.parameters() if p.requires_grad),
            peak_memory_bytes=device_memory.peak(self.setup.device),
            environment={
                **self.setup.environment,
                "precision": problem.execution.precision,
                **({"compiled": "yes"} if problem.execution.compiled else {}),
                **({"batch": _in_micro_batches(problem.micro_batches)} if problem.micro_batches > 1 else {}),
            },
        )


def _checkpoint(spec: RunSpec) -> CheckpointFile:
    return CheckpointFile(f"{spec.arm.key}-{spec.key}")  # the arm's, so that all of them can be found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _ask_once(callback: PruningCallback) -> PruningCallback:
    """Return the same, but no evaluation is judged twice: a run that begins anew repeats some."""
    judged = set[float]()

    def ask(row: Row) -> bool:
        if row["step"] in judged:
            return True
        judged.add(row["step"])
        return callback(row)

    return ask


def _in_micro_batches(micro_batches: int) -> str:
    return f"each batch in {micro_batches} micro-batches, with accumulated gradients"
