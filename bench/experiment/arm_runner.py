"""Do the jobs of one arm: its tuning, and the final runs of some of its seeds."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.core.runs import Arm, Purpose, RunResult, RunSpec, Value
from bench.experiment.arm_state import ArmSnapshot, ArmState
from bench.experiment.events import ArmOpened, Message, OnEvent, RunsSkipped
from bench.experiment.open_study import OpenStudy
from bench.experiment.options import Options
from bench.experiment.plan import TUNING_SEED, plan
from bench.experiment.run_logger import PlannedRun
from bench.experiment.scheduler.base import DoJob, Job, JobResult
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
        arm: one of its arms.
        study_run: the id of the study's run in the store.
    """

    study: OpenStudy
    arm: Arm
    study_run: str
    _arm_run: str = ""  # its id, once it is open
    _elsewhere: set[Job] = field(default_factory=set)  # said to be done by another command

    @property
    def state(self) -> ArmState:
        """What is done of the arm."""
        return self.study.states[self.arm.strategy]

    def do(self, job: Job) -> JobResult | None:
        """Do a job, or return None after a while if another command is at it."""
        together = self.study.setup.trains_only_head(self.arm)
        part = bool(job.seeds) if together else job.seeds  # seeds that train together are one piece of work
        with self.study.machine.claims.claim(self.arm.key, part) as ours:
            if ours:
                return self._finals(job, together) if job.seeds else self._tune(together)
        if job not in self._elsewhere:
            self.study.emit(Message(f"{job}: is being done by another process"))
            self._elsewhere.add(job)
        time.sleep(POLL_SECONDS)
        return None

    def _tune(self, together: bool) -> JobResult:
        """Run the trials that are missing; the final runs come after them."""
        tuner = self.state.tuner()
        best = tuner.result().best
        self._open(self.state.chosen(best), best)
        best = tuner.run(self._trials, together=together).best
        self.state.remember(tuner.finished.values())
        params = self.state.chosen(best)
        self._open(params, best)
        seeds = self.state.missing(params)
        groups = [tuple(seeds)] if together and seeds else [(seed,) for seed in seeds]
        return JobResult(tuple(Job(self.arm.strategy, group, params) for group in groups))

    def _finals(self, job: Job, together: bool) -> JobResult:
        """Do the final runs of a job that another command has not done meanwhile."""
        if not self._arm_run:
            self._open(job.params)
        seeds = self.state.not_ended(job.seeds, job.params)
        skipped = len(job.seeds) - len(seeds)
        self.study.emit(RunsSkipped(self.arm.strategy, skipped, f"{job}: found done"))
        if seeds:
            self._do_finals(seeds, job.params, self.study.plan.seeds if together else seeds)
        return JobResult()

    def _open(self, params: Mapping[str, Value], best: Mapping[str, Value] | None = None) -> None:
        """Open the arm's run in the store, with the matrix for these hyperparameters and the best as tags."""
        study, arm = self.study, self.arm
        matrix = study.setup.plan_text(arm, params)
        tags = {**study.tags, "data": study.plan.dataset.digest, "weights": study.plan.origin.identity}
        tags |= {f"best.{name}": str(value) for name, value in (best or {}).items()}
        tags |= self.state.tags if study.options.fresh else {}  # else the store says it already
        self._arm_run = study.store.open_arm(self.study_run, arm, tags, {"strategy": arm.strategy}, matrix)
        study.emit(ArmOpened(arm.strategy, self._arm_run))

    def _trials(self, asked: Sequence[Asked]) -> Iterator[RunResult]:
        """Run trials that were asked for together; give the results of those that are not known."""
        study = self.study.plan.study
        runs = [
            PlannedRun(
                RunSpec(self.arm, trial.params, TUNING_SEED, Purpose.TRIAL),
                f"trial {trial.number + 1}/{study.tuning.trials}",
                self._judge(trial),
                {"trial": str(trial.number), **self.state.trial_tags},
                known=trial.known,
            )
            for trial in asked
        ]
        for executed in self.study.logger.do(runs, self._arm_run):
            yield executed.result

    def _judge(self, trial: Asked) -> "PruningCallback":
        """Return what reports a trial's evaluations and says whether it goes on."""
        last, metric = self.study.plan.evaluations[-1], f"val/{self.study.plan.study.metric}"
        return lambda row: trial.report(int(row["step"]), row[metric]) or int(row["step"]) == last

    def _do_finals(self, seeds: Sequence[int], params: Mapping[str, Value], group: Sequence[int]) -> None:
        """Do the final runs of some seeds; `group` holds all that are trained together with them."""
        runs = [
            PlannedRun(
                RunSpec(self.arm, params, seed, Purpose.FINAL),
                f"seed {seed}/{self.study.plan.study.seeds}",
                lambda _row: True,
                self.state.tags,
                known=seed not in seeds,
            )
            for seed in group
        ]
        for _ in self.study.logger.do(runs, self._arm_run):
            pass


@dataclass(frozen=True, eq=False)
class WorkHere:
    """The jobs of a study that is open in this process: see `scheduler.base.Work`."""

    study: OpenStudy
    study_run: str

    def open(self, _emit: OnEvent) -> DoJob:
        """Return what does a job; the study says itself where its events go."""
        runners = {arm.strategy: ArmRunner(self.study, arm, self.study_run) for arm in self.study.plan.arms}
        return lambda job: runners[job.strategy].do(job)


@dataclass(frozen=True)
class WorkElsewhere:
    """The jobs of a study that is opened where they are done: see `scheduler.base.Work`."""

    study: Study
    options: Options
    study_run: str
    experiment_id: str
    arms: Mapping[str, ArmSnapshot]  # by strategy

    def open(self, emit: OnEvent) -> DoJob:
        """Open the study; return what does a job."""
        laid_out = plan(self.study)
        opened = OpenStudy(laid_out, self.options, emit, self.experiment_id, self.arms)
        return WorkHere(opened, self.study_run).open(emit)
