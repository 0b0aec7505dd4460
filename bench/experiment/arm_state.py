"""What is done of an arm, and what is missing: questions to the run store, which is the one truth.

What this command did itself is remembered as well, for the store may be away.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bench.core.runs import Arm, Purpose, RunSpec, Status, Value
from bench.experiment.options import Options
from bench.experiment.plan import TUNING_SEED, Plan
from bench.strategies.registry import STRATEGIES
from bench.study_record.facts import tuning_identity
from bench.tracking import frames
from bench.tracking.frames import FoundRun
from bench.tracking.reader import GENERATION
from bench.tracking.store import RunStore
from bench.tuning.trials import FinishedTrial
from bench.tuning.tuner import Tuner

COMMAND = "bench.command"  # the tag that says which command did a trial


@dataclass(frozen=True)
class ArmSnapshot:
    """What one process knows of an arm, for another one, to which the store may be away.

    Args:
        generation: the mark of its runs since they were forgotten with --fresh; empty if they never were.
        trials: that count.
    """

    generation: str
    trials: tuple[FinishedTrial, ...]


@dataclass(eq=False)
class ArmState:
    """One arm of a plan, as far as it is.

    Args:
        snapshot: of another process of this command.
    """

    plan: Plan
    arm: Arm
    store: RunStore
    options: Options
    snapshot: ArmSnapshot | None = None
    _remembered: dict[int, FinishedTrial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.snapshot:
            self.remember(self.snapshot.trials)

    @cached_property
    def generation(self) -> str:
        """The mark of the arm's runs since they were forgotten with --fresh; empty if they never were."""
        return self.snapshot.generation if self.snapshot else self.store.reader.generation(self.arm.key)

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which the arm's runs that count are known."""
        return {GENERATION: self.generation} if self.generation else {}

    @property
    def trial_tags(self) -> dict[str, str]:
        """The tags of a trial of this command, but for its number."""
        tuning = {"bench.tuning": tuning_identity(self.plan.study), COMMAND: self._command}
        return tuning | self.tags

    @property
    def _command(self) -> str:
        return repr(self.options.began)

    def forget(self) -> None:
        """Let nothing that was done before count."""
        self.generation = uuid.uuid4().hex
        self._remembered.clear()
        self.store.forget_arm(self.arm.key, self.generation)

    def tuner(self) -> Tuner:
        """Return the arm's tuning, as far as it is."""
        self.remember(self._stored_trials())
        return Tuner(
            STRATEGIES[self.arm.strategy], self.plan.study, self.plan.evaluations, self._remembered.values()
        )

    def remember(self, trials: Iterable[FinishedTrial]) -> None:
        """Note trials that count."""
        self._remembered |= {trial.number: trial for trial in trials}

    def taken(self) -> ArmSnapshot:
        """Return what is known now, for another process."""
        return ArmSnapshot(self.generation, tuple(self._remembered.values()))

    def _stored_trials(self) -> list[FinishedTrial]:
        """Return the trials in the store that count: of this tuning, and not failed in passing before."""
        study, reader = self.plan.study, self.store.reader
        tuning = tuning_identity(study)
        found = [
            run
            for run in self.store.trials(self.arm.key, self._keys_of_trials())
            if run.tags.get("bench.tuning") == tuning and run.tags.get(GENERATION, "") == self.generation
        ]
        counted = [run for run in frames.by_trial(found, [self.arm.key]) if self._counts(run)]
        metric = f"val/{study.metric}"
        whole = len(counted) == study.tuning.trials  # then nothing is asked for, and no curve needed
        reports = {} if whole else reader.curve_values(counted, metric)
        return [finished_trial(run, metric, reports.get(run.run_id, [])) for run in counted]

    def _counts(self, run: FoundRun) -> bool:
        """Say whether a trial counts: one that failed in passing does for the command that did it."""
        return not run.failed_in_passing or run.tags.get(COMMAND) == self._command

    def _keys_of_trials(self) -> set[str]:
        """Return the run keys of the trials that are remembered."""
        trials = self._remembered.values()
        return {RunSpec(self.arm, trial.params, TUNING_SEED, Purpose.TRIAL).key for trial in trials}

    def chosen(self, best: Mapping[str, Value] | None) -> Mapping[str, Value]:
        """Return the best hyperparameters; the defaults if every trial failed."""
        return best if best is not None else STRATEGIES[self.arm.strategy].defaults

    def done(self, params: Mapping[str, Value]) -> Mapping[str, FoundRun]:
        """Return the final runs with these hyperparameters that are done, by key."""
        return self._find(self._keys_of_finals(params))

    def missing(self, params: Mapping[str, Value]) -> list[int]:
        """Return the seeds whose final run is not done."""
        keys = self._keys_of_finals(params)
        found = self._find(keys)
        return [seed for key, seed in keys.items() if key not in found]

    def not_ended(self, seeds: Sequence[int], params: Mapping[str, Value]) -> list[int]:
        """Return the seeds whose final run was neither done nor, since this command began, failed."""
        keys = {seed: RunSpec(self.arm, params, seed, Purpose.FINAL).key for seed in seeds}
        began = self.options.began
        return [seed for seed, key in keys.items() if not self.store.has_ended(key, began, self.tags)]

    def _keys_of_finals(self, params: Mapping[str, Value]) -> dict[str, int]:
        """Return the keys of the arm's final runs, and their seeds."""
        return {RunSpec(self.arm, params, seed, Purpose.FINAL).key: seed for seed in self.plan.seeds}

    def _find(self, keys: Iterable[str]) -> Mapping[str, FoundRun]:
        return self.store.find(keys, {"bench.arm_key": self.arm.key, **self.tags})


def finished_trial(run: FoundRun, metric: str, values: Sequence[tuple[int, float]]) -> FinishedTrial:
    """Return a stored trial as the tuner has it."""
    return FinishedTrial(
        int(run.tags["trial"]),
        run.params,
        run.status,
        run.metrics[metric] if run.status is Status.DONE else None,
        run.metrics.get("val/loss", 0.0),
        tuple(values),
        "bench.diverged" in run.tags,
    )
