"""What is done of an arm, and what is missing: questions to the run store, which is the one truth.

What this command did itself is remembered as well, for the store may be away.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bench.core.runs import Arm, Purpose, RunSpec, Status, Value
from bench.experiment.options import Options
from bench.experiment.plan import Plan
from bench.strategies.base import Strategy
from bench.strategies.registry import tuned_strategy
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
        run_id: of the arm's run in the store; empty: it is not open.
        generation: the mark of its runs since they were forgotten with --fresh; empty if they never were.
        trials: that count, by seed.
    """

    run_id: str
    generation: str
    trials: Mapping[int, Sequence[FinishedTrial]]


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
    run_id: str = ""  # of the arm's run in the store, once it is open
    _remembered: dict[int, dict[int, FinishedTrial]] = field(default_factory=dict)  # by seed and number

    def __post_init__(self) -> None:
        if self.snapshot:
            self.run_id = self.snapshot.run_id
            for seed, trials in self.snapshot.trials.items():
                self.remember(seed, trials)

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

    def tuners(self) -> dict[int, Tuner]:
        """Return the tuning of each seed, as far as it is."""
        self._take_in()
        return {seed: self._tuner(seed) for seed in self.plan.seeds}

    def tuner(self, seed: int) -> Tuner:
        """Return the tuning of a seed, as far as it is; that of others may wait for a store that is away."""
        self._take_in(seed)
        return self._tuner(seed)

    def _take_in(self, seed: int | None = None) -> None:
        """Remember what the store has, of a seed or of all."""
        for found, trials in self._stored_trials(seed).items():
            self.remember(found, trials)

    def _tuner(self, seed: int) -> Tuner:
        finished = self._remembered.get(seed, {}).values()
        return Tuner(self._strategy, self.plan.study, seed, self.plan.evaluations, finished)

    @property
    def _strategy(self) -> Strategy:
        return tuned_strategy(self.arm.strategy, self.plan.study)

    def remember(self, seed: int, trials: Iterable[FinishedTrial]) -> None:
        """Note trials that count."""
        self._remembered.setdefault(seed, {}).update((trial.number, trial) for trial in trials)

    def taken(self) -> ArmSnapshot:
        """Return what is known now, for another process."""
        trials = {seed: tuple(known.values()) for seed, known in self._remembered.items()}
        return ArmSnapshot(self.run_id, self.generation, trials)

    def _stored_trials(self, seed: int | None) -> dict[int, list[FinishedTrial]]:
        """Return the trials in the store that count: of this tuning, and not failed in passing before."""
        study, reader = self.plan.study, self.store.reader
        tuning = tuning_identity(study)
        found = [
            run
            for run in self.store.trials(self.arm.key, self._keys_of_trials(), seed)
            if run.tags.get("bench.tuning") == tuning and run.tags.get(GENERATION, "") == self.generation
        ]
        by_seed = frames.trials_by_seed([run for run in found if self._counts(run)])
        metric = f"val/{study.metric}"
        half = [run for own in by_seed.values() if len(own) < study.tuning.trials for run in own]
        reports = reader.curve_values(half, metric)  # where all are done nothing is asked for
        return {
            seed: [finished_trial(run, metric, reports.get(run.run_id, [])) for run in own]
            for seed, own in by_seed.items()
        }

    def _counts(self, run: FoundRun) -> bool:
        """Say whether a trial counts: one that failed in passing does for the command that did it."""
        return not run.failed_in_passing or run.tags.get(COMMAND) == self._command

    def _keys_of_trials(self) -> set[str]:
        """Return the run keys of the trials that are remembered."""
        return {
            RunSpec(self.arm, trial.params, seed, Purpose.TRIAL).key
            for seed, trials in self._remembered.items()
            for trial in trials.values()
        }

    def final(self, seed: int, tuner: Tuner) -> RunSpec:
        """Return a seed's final run: with its best hyperparameters, the defaults if every trial failed."""
        best = tuner.result().best
        params: Mapping[str, Value] = self._strategy.defaults if best is None else best
        return RunSpec(self.arm, params, seed, Purpose.FINAL)

    def done(self, tuners: Mapping[int, Tuner]) -> dict[int, FoundRun]:
        """Return by seed the final runs that are done, of the seeds that are tuned."""
        return self.found([self.final(s, tuner) for s, tuner in tuners.items() if not tuner.missing])

    def found(self, finals: Iterable[RunSpec]) -> dict[int, FoundRun]:
        """Return by seed which of some final runs are done."""
        keys = {final.key: final.seed for final in finals}
        found = self.store.find(keys, {"bench.arm_key": self.arm.key, **self.tags})
        return {keys[key]: run for key, run in found.items()}

    def has_ended(self, final: RunSpec) -> bool:
        """Say whether a final run was done or, since this command began, failed."""
        return self.store.has_ended(final.key, self.options.began, self.tags)


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
