"""Do the jobs of one arm: each seed's tuning, and its final run."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.core.runs import Arm, Purpose, RunResult, RunSpec
from bench.experiment.arm_state import ArmSnapshot, ArmState
from bench.experiment.events import Message, OnEvent, RunsSkipped
from bench.experiment.open_study import OpenStudy
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.run_logger import PlannedRun
from bench.experiment.scheduler.base import DoJob, Job
from bench.study.schema import Study
from bench.tuning.trials import Asked

if TYPE_CHECKING:
    from bench.training.problem import PruningCallback

POLL_SECONDS = 0.5  # until another command is asked again whether it is done


@dataclass(eq=False)
class ArmRunner:
    """Does jobs of one arm; what is done already is found, not done again.

    Args:
        study: in this process.
        arm: one of its arms, whose run is open in the store.
    """

    study: OpenStudy
    arm: Arm
    _elsewhere: set[Job] = field(default_factory=set)  # said to be done by another command

    @property
    def state(self) -> ArmState:
        """What is done of the arm."""
        return self.study.states[self.arm.strategy]

    def do(self, job: Job) -> bool:
        """Do a job, or return False after a while if another command is at it."""
        with self.study.machine.claims.claim(self.arm.key, job.seed) as ours:
            if ours:
                self._do(job.seed)
                return True
        if job not in self._elsewhere:
            self.study.emit(Message(f"{job}: is being done by another process"))
            self._elsewhere.add(job)
        time.sleep(POLL_SECONDS)
        return False

    def _do(self, seed: int) -> None:
        """Run the trials that are missing, and then the final run, unless another command has done it."""
        tuner = self.state.tuner(seed)
        together = self.study.setup.trains_only_head(self.arm) if tuner.missing else False
        tuner.run(lambda asked: self._trials(seed, asked), together=together)
        self.state.remember(seed, tuner.finished.values())
        final = self.state.final(seed, tuner)
        if self.state.has_ended(final):
            self.study.emit(RunsSkipped(self.arm.strategy, 1, f"seed {seed}: found done"))
            return
        name = f"seed {seed}/{self.study.plan.study.most_seeds}"
        run = PlannedRun(final, name, lambda _row: True, self.state.tags)
        for _ in self.study.logger.do([run], self.state.run_id):
            pass

    def _trials(self, seed: int, asked: Sequence[Asked]) -> Iterator[RunResult]:
        """Run trials that were asked for together; give the results of those that are not known."""
        count = self.study.plan.study.tuning.trials
        runs = [
            PlannedRun(
                RunSpec(self.arm, trial.params, seed, Purpose.TRIAL),
                f"seed {seed}, trial {trial.number + 1}/{count}",
                self._judge(trial),
                {"trial": str(trial.number), **self.state.trial_tags},
                known=trial.known,
            )
            for trial in asked
        ]
        for executed in self.study.logger.do(runs, self.state.run_id):
            yield executed.result

    def _judge(self, trial: Asked) -> "PruningCallback":
        """Return what reports a trial's evaluations and says whether it goes on."""
        last, metric = self.study.plan.evaluations[-1], f"val/{self.study.plan.study.metric}"
        return lambda row: trial.report(int(row["step"]), row[metric]) or int(row["step"]) == last


@dataclass(frozen=True, eq=False)
class WorkHere:
    """The jobs of a study that is open in this process: see `scheduler.base.Work`."""

    study: OpenStudy

    def open(self, _emit: OnEvent) -> DoJob:
        """Return what does a job; the study says itself where its events go."""
        runners = {arm.strategy: ArmRunner(self.study, arm) for arm in self.study.plan.arms}
        return lambda job: runners[job.strategy].do(job)


@dataclass(frozen=True)
class WorkElsewhere:
    """The jobs of a study that is opened where they are done: see `scheduler.base.Work`."""

    study: Study
    options: Options
    experiment_id: str
    arms: Mapping[str, ArmSnapshot]  # by strategy

    def open(self, emit: OnEvent) -> DoJob:
        """Open the study; return what does a job."""
        laid_out = plan(self.study)
        return WorkHere(OpenStudy(laid_out, self.options, emit, self.experiment_id, self.arms)).open(emit)
