"""What is done of an arm, and what is missing: questions to run store and tuner that change nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.core.runs import Arm, Purpose, RunSpec, Value
from bench.experiment.options import Options
from bench.experiment.plan import Plan
from bench.strategies.registry import STRATEGIES
from bench.study_record.read import GENERATION
from bench.system import locations
from bench.tracking.frames import FoundRun
from bench.tracking.store import RunStore
from bench.tuning.tuner import Tuner


@dataclass(eq=False)
class ArmState:
    """One arm of a plan, as far as it is."""

    plan: Plan
    arm: Arm
    store: RunStore
    options: Options

    def tuner(self) -> Tuner:
        """Return the arm's tuning, as far as it is."""
        study = self.plan.study
        journal = locations.home() / "optuna" / f"{study.name}.journal"
        return Tuner(self.arm, STRATEGIES[self.arm.strategy], study, journal, self.options.began)

    @cached_property
    def generation(self) -> dict[str, str]:
        """The tag of the arm's runs since they were forgotten with --fresh; empty if they never were."""
        generation = self.tuner().generation
        return {GENERATION: generation} if generation else {}

    def forget(self) -> None:
        """Let nothing that was done before count."""
        self.tuner().forget()

    def chosen(self, best: Mapping[str, Value] | None) -> Mapping[str, Value]:
        """Return the best hyperparameters; the defaults if every trial failed."""
        return best if best is not None else STRATEGIES[self.arm.strategy].defaults

    def done(self, params: Mapping[str, Value]) -> Mapping[str, FoundRun]:
        """Return the final runs with these hyperparameters that are done, by key."""
        return self._find(self._keys(params))

    def missing(self, params: Mapping[str, Value]) -> list[int]:
        """Return the seeds whose final run is not done."""
        keys = self._keys(params)
        found = self._find(keys)
        return [seed for key, seed in keys.items() if key not in found]

    def not_ended(self, seeds: Sequence[int], params: Mapping[str, Value]) -> list[int]:
        """Return the seeds whose final run was neither done nor, since this command began, failed."""
        keys = {seed: RunSpec(self.arm, params, seed, Purpose.FINAL).key for seed in seeds}
        began, tags = self.options.began, self.generation
        return [seed for seed, key in keys.items() if not self.store.has_ended(key, began, tags)]

    def _keys(self, params: Mapping[str, Value]) -> dict[str, int]:
        """Return the keys of the arm's final runs, and their seeds."""
        return {RunSpec(self.arm, params, seed, Purpose.FINAL).key: seed for seed in self.plan.seeds}

    def _find(self, keys: Iterable[str]) -> Mapping[str, FoundRun]:
        return self.store.find(keys, {"bench.arm_key": self.arm.key, **self.generation})
