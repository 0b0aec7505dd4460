"""A study that is open in a process: what all jobs that are done there share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bench.core.runs import Arm, Value
from bench.experiment.arm_state import ArmSnapshot, ArmState
from bench.experiment.events import OnEvent
from bench.experiment.machine import Machine, this_machine
from bench.experiment.options import Options
from bench.experiment.plan import Plan
from bench.experiment.run_logger import RunLogger
from bench.study.schema import Head, Study, with_changes
from bench.study_record.read import EXPERIMENT
from bench.tracking.store import open_study_store

if TYPE_CHECKING:
    from bench.experiment.run_executor import RunExecutor
    from bench.training.setup import TrainingSetup


@dataclass(eq=False)
class OpenStudy:
    """A plan with its run store, its machine, and what executes and logs runs, each opened when it is needed.

    Args:
        plan: what is run.
        options: how it is run.
        emit: takes what happens.
        arms: what another process knows of them, by strategy.
        experiment_id: if another process has found it; then nothing is asked of the store, which may be away.
    """

    plan: Plan
    options: Options
    emit: OnEvent
    experiment_id: str = ""
    arms: Mapping[str, ArmSnapshot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        experiment = EXPERIMENT.format(study=self.plan.study.name)
        self.store = open_study_store(self.options.tracking_uri, experiment, self.experiment_id)
        self.machine: Machine = this_machine()
        self.states = {arm.strategy: self._state(arm) for arm in self.plan.arms}
        self.baselines = {arm.strategy: self._state(arm) for arm in self.plan.baselines}

    def _state(self, arm: Arm) -> ArmState:
        return ArmState(self.plan, arm, self.store, self.options, self.arms.get(arm.strategy))

    @cached_property
    def tags(self) -> dict[str, Value]:
        """What all runs of the study are tagged with: its scenario, and how many labels they train on."""
        scenario = self.plan.study.scenario
        tags = scenario.model_dump(exclude_none=True) if scenario else {}
        return {**tags, "train_labels": len(self.plan.splits[1].train)}

    @cached_property
    def setup(self) -> "TrainingSetup":
        """What runs train on, built when the first one needs it: a finished study never imports torch."""
        return self._setup(self.plan.study)

    @cached_property
    def setup_of_pooled_features(self) -> "TrainingSetup":
        """The same with a linear head, whatever the study's is: it reads what baselines compare."""
        study, linear = self.plan.study, Head()
        return self.setup if study.head.kind == linear.kind else self._setup(with_changes(study, head=linear))

    def _setup(self, study: Study) -> "TrainingSetup":
        from bench.training.setup import Compute, TrainingSetup

        plan, options = self.plan, self.options
        compute = Compute(options.device, options.threads, options.deterministic)
        return TrainingSetup(study, plan.dataset, plan.origin, compute)

    @cached_property
    def executor(self) -> "RunExecutor":
        """What executes runs."""
        from bench.experiment.run_executor import RunExecutor

        return RunExecutor(self.setup, self.plan.also_test)

    @cached_property
    def logger(self) -> RunLogger:
        """What does runs and logs them."""
        return RunLogger(self.plan, self.store, self.emit, self.executor, self.tags)
