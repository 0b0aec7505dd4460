"""Do the jobs of one arm: each seed's tuning, and its final run."""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.core.errors import InputError, StoreAwayError
from bench.core.runs import Arm, Purpose, RunResult, RunSpec
from bench.experiment.arm_state import ArmSnapshot, ArmState
from bench.experiment.events import Message, OnEvent, RunsSkipped
from bench.experiment.open_study import OpenStudy
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.run_logger import PlannedRun
from bench.experiment.scheduler.base import DoJob, Job
from bench.study.schema import Study
from bench.study_record.read import EXPERIMENT
from bench.tracking.connection import Connection
from bench.tuning.trials import Asked

if TYPE_CHECKING:
    from bench.training.problem import PruningCallback

POLL_SECONDS = 0.5  # until another command is asked again whether it is done, or a store whether it is back
PATIENCE_SECONDS = 1800.0  # with a store that is away, once a job is done on a machine of its own


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

    def check(self) -> None:
        """Do nothing: the study is open."""

    def open(self, _emit: OnEvent) -> DoJob:
        """Return what does a job; the study says itself where its events go."""
        runners = {arm.strategy: ArmRunner(self.study, arm) for arm in self.study.plan.arms}
        return lambda job: runners[job.strategy].do(job)


@dataclass(frozen=True)
class WorkElsewhere:
    """The jobs of a study that is opened where they are done: see `scheduler.base.Work`.

    Args:
        study: what is run.
        options: how it is run.
        experiment_id: of its experiment in the store.
        arms: what is known of them, by strategy.
        key: of the study's plan.
        apart: with a BENCH_HOME of its own, whose outbox nobody else delivers.
    """

    study: Study
    options: Options
    experiment_id: str
    arms: Mapping[str, ArmSnapshot]
    key: str
    apart: bool = False

    def check(self) -> None:
        """Open data, weights and store, as each job here will; InputError if they are missing, or others."""
        if plan(self.study).key != self.key:
            what = f"its data or weights are not those that {socket.gethostname()} was given"
            remedy = "every node must see the same files under the same path"
            raise InputError(what, self.study.target.data, remedy)
        Connection(self.options.tracking_uri, EXPERIMENT.format(study=self.study.name), create=False)

    def open(self, emit: OnEvent) -> DoJob:
        """Open the study; return what does a job."""
        study = OpenStudy(plan(self.study), self.options, emit, self.experiment_id, self.arms)
        do = WorkHere(study).open(emit)
        return (lambda job: do(job) and _deliver(study)) if self.apart else do


def _deliver(study: OpenStudy) -> bool:
    """Return True once all that was written is in the store; StoreAwayError if that is away for too long."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            study.store.settle()
        except StoreAwayError as error:
            if time.monotonic() > until:
                raise
            study.emit(Message(f"{error}; what is done waits for it", once=True))
            time.sleep(POLL_SECONDS)
        else:
            return True
