"""Run a plan: find what is missing, have it done by a scheduler, and keep the study's run open meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.runs import Arm
from bench.experiment.arm_runner import WorkElsewhere, WorkHere
from bench.experiment.events import ArmOpened, Event
from bench.experiment.open_study import OpenStudy
from bench.experiment.options import Options
from bench.experiment.plan import USUAL_STAGES, Plan
from bench.experiment.progress import Progress
from bench.experiment.scheduler.base import Job, JobResult, Scheduler, Work
from bench.experiment.scheduler.capacity import choose_count
from bench.experiment.scheduler.processes import ProcessScheduler
from bench.experiment.scheduler.serial import SerialScheduler
from bench.strategies.registry import STRATEGIES
from bench.study_record import facts, read, write
from bench.study_record.facts import flat
from bench.system.hardware import usable_cpus
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.system_metrics import system_metrics

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence


class StudyRunner:
    """Runs a plan; what is done already is found, not done again."""

    def __init__(self, plan: Plan, options: Options, progress: Progress) -> None:
        self.plan, self.study, self.options, self.progress = plan, plan.study, options, progress
        self.opened = OpenStudy(plan, options, self._on_event)
        self.store = self.opened.store
        self._arm_runs: dict[str, str] = {}  # of the arms that are open: strategy to the id of its run
        self._todo: dict[str, set[int]] = {}  # strategy to seeds that are not done yet

    def run(self) -> None:
        """Do all runs that are missing."""
        with self.opened.machine.claims.take_part(self.study.name, alone=self.options.fresh):
            if self.options.fresh:
                self._forget()
            for arm in self.plan.arms:
                runs = self.study.tuning.trials + self.study.seeds
                self.progress.plan(arm.strategy, runs, len(self.plan.evaluations))
            jobs = [Job(arm.strategy) for arm in self._longest_first() if self._is_missing(arm)]
            if jobs or not self._is_closed():
                with self._study_run() as study_run:
                    self._schedule(jobs, study_run)
            self.store.settle()

    def _forget(self) -> None:
        """Let nothing that was done before count; what waits for the store is of before, too."""
        self.store.settle()
        for arm in self.plan.arms:
            self.opened.states[arm.strategy].forget()
            self.opened.machine.checkpoints.forget(arm)

    def _is_closed(self) -> bool:
        """Say whether the study's run has ended, with all in it; one killed at the very end has not."""
        found = read.find(self.store, self.plan.key)
        return found is not None and found.ended is not None and write.is_recorded(found, self.plan)

    def _schedule(self, jobs: list[Job], study_run: str) -> None:
        """Have jobs done, here or in processes that each do some of them."""
        if not jobs:
            return
        scheduler, work = self._scheduler(study_run)
        self.progress.say("loading torch and the source model ...")
        status: Any = "FAILED"
        try:
            scheduler.run(jobs, work, self._on_done, self._on_event)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for arm_run in self._arm_runs.values():
                self.store.writer.close(arm_run, status)

    def _scheduler(self, study_run: str) -> tuple[Scheduler, Work]:
        options = self.options
        pixels = self.study.training.batch_size * self.study.target.image_size**2
        count = choose_count(options.jobs, options.device, self._most_at_once(), pixels)
        if count == 1:
            return SerialScheduler(), WorkHere(self.opened, study_run)
        self.progress.side_by_side = count
        shared = replace(options, threads=options.threads or max(1, usable_cpus() // count))
        arms = {strategy: state.taken() for strategy, state in self.opened.states.items()}
        experiment_id = self.store.connection.experiment_id
        return ProcessScheduler(count), WorkElsewhere(self.study, shared, study_run, experiment_id, arms)

    def _on_event(self, event: Event) -> None:
        """Show what happens; note which arms are open."""
        if isinstance(event, ArmOpened):
            self._arm_runs[event.strategy] = event.run_id
        self.progress.on_event(event)

    def _on_done(self, job: Job, result: JobResult) -> tuple[Job, ...]:
        """Note that a job is done; return the jobs that are possible now."""
        todo = self._todo.setdefault(job.strategy, set())
        todo -= set(job.seeds)
        if not job.seeds:
            todo |= {seed for following in result.next_jobs for seed in following.seeds}
            found = self.study.seeds - len(todo)
            self.progress.skip_runs(job.strategy, found, f"{found} seeds found done")
        if not todo:
            self.store.writer.close(self._arm_runs.pop(job.strategy), "FINISHED")
            self.progress.end_arm(job.strategy)
        return result.next_jobs

    def _longest_first(self) -> list[Arm]:
        """Return the arms, those first that train most: a long one that begins last keeps all waiting."""
        return sorted(self.plan.arms, key=lambda arm: _usually_frozen(arm.strategy))

    def _most_at_once(self) -> int:
        """Return how many jobs can be done side by side: all seeds of a strategy of heads are one.

        Of the whole study and not of what is missing: another number of processes has other threads each, and
        with them a study that is gone on with would get other last bits.
        """
        only_heads = all(_usually_frozen(arm.strategy) == USUAL_STAGES for arm in self.plan.arms)
        return len(self.plan.arms) if only_heads else max(len(self.plan.arms), self.study.seeds)

    def _is_missing(self, arm: Arm) -> bool:
        """Say whether anything of an arm is not done; show what is."""
        state = self.opened.states[arm.strategy]
        tuned = state.tuner().result()
        self.progress.skip_runs(arm.strategy, tuned.trials, f"{tuned.trials} trials found done")
        if tuned.trials < self.study.tuning.trials or state.missing(state.chosen(tuned.best)):
            return True
        self.progress.skip_runs(arm.strategy, self.study.seeds, f"{self.study.seeds} seeds found done")
        self.progress.end_arm(arm.strategy)
        return False

    @contextmanager
    def _study_run(self) -> Iterator[str]:
        """Keep the study's run open in the store while its arms run."""
        run_id = self._open_run()
        status: Any = "FAILED"
        try:
            with system_metrics(self.store.connection, run_id):
                yield run_id
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self.store.fail_leftovers(run_id, at_the_end=True)
            self.store.writer.close(run_id, status)

    def _open_run(self) -> str:
        """Open the study's run, with all that a report needs to know of the study; return its id."""
        study, store = self.study, self.store
        tags = {**self.opened.tags, "question": study.question}
        labels = f", {tags['train_labels']} labels" if self.options.sizes else ""
        settings = flat(study.model_dump(mode="json"))
        with self.opened.machine.claims.alone("opening", study.name):  # or each opens its own
            run_id = store.open_study(study.name, self.plan.key, tags, settings, labels)
        store.fail_leftovers(run_id)
        dataset = self.plan.dataset
        store.writer.log_dataset(run_id, dataset.name, dataset.digest, dataset.origin)
        found = read.find(store, self.plan.key)
        if found is None or not write.is_recorded(found, self.plan):
            write.record(store, run_id, self.plan, self.options.budget, sizes=self.options.sizes)
        return run_id

    @property
    def fingerprint(self) -> str:
        """Of what a report on this study says: two reports with the same one are the same."""
        found: list[FoundRun] = []
        for state in self.opened.states.values():
            found += state.done(state.chosen(state.tuner().result().best)).values()
        return facts.fingerprint(self.study, self.plan.key, found)

    def evidence(self) -> "Evidence":
        """Return what the store holds of this plan.

        Raises:
            InputError: if it was never run.
        """
        return read.gather(self.store, self.found)

    @property
    def found(self) -> FoundStudy:
        """The study's run in the store."""
        found = read.find(self.store, self.plan.key)
        if found is None:
            raise InputError("the study was never run", self.study.name, "run `bench run` first")
        return found


def _usually_frozen(name: str) -> int:
    """Return how many stages of a usual model a strategy freezes."""
    strategy = STRATEGIES[name]
    return strategy.plan(USUAL_STAGES, strategy.defaults).frozen_prefix
