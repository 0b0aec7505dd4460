"""Run a plan: find what is missing, have it done by a scheduler, and keep the study's run open meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.runs import Arm
from bench.experiment.arm_runner import WorkElsewhere, WorkHere
from bench.experiment.open_study import OpenStudy
from bench.experiment.options import Options
from bench.experiment.plan import USUAL_STAGES, Plan
from bench.experiment.progress import Progress
from bench.experiment.scheduler.base import Job, Scheduler, Work
from bench.experiment.scheduler.capacity import choose_count, gpus_for
from bench.experiment.scheduler.cluster import RayScheduler, share_of
from bench.experiment.scheduler.processes import ProcessScheduler
from bench.experiment.scheduler.serial import SerialScheduler
from bench.strategies.registry import STRATEGIES
from bench.study_record import facts, read, write
from bench.study_record.facts import flat
from bench.system.hardware import usable_cpus
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.lease import Lease
from bench.tracking.system_metrics import system_metrics

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence


class StudyRunner:
    """Runs a plan; what is done already is found, not done again."""

    def __init__(self, plan: Plan, options: Options, progress: Progress) -> None:
        self.plan, self.study, self.options, self.progress = plan, plan.study, options, progress
        # What a cluster has is not what this machine has, which does no more than the baselines.
        here = replace(options, device="auto") if options.cluster else options
        self.opened = OpenStudy(plan, here, progress.on_event)
        self.store = self.opened.store
        self._over: dict[str, set[int]] = {}  # strategy to seeds that are done, or failed in this command
        self._leased: Lease | None = None
        self._todo: dict[str, set[int]] = {}  # strategy to seeds that were scheduled and are not over

    def run(self) -> None:
        """Do all runs that are missing."""
        claims = self.opened.machine.claims
        with claims.take_part(self.study.name, alone=self.options.fresh), self._lease():
            if self.options.fresh:
                self._forget()
            for arm in self.plan.arms:
                self.progress.plan(arm.strategy, 0, len(self.plan.evaluations))
                self._over[arm.strategy] = self._find_done(arm.strategy)
            jobs = self._jobs()
            baselines = [arm for arm in self.plan.baselines if self._is_missing(arm)]
            if jobs or baselines or not self._is_closed():
                with self._study_run() as study_run:
                    while jobs:
                        self._schedule(jobs, study_run)
                        jobs = self._jobs()
                    self._do_baselines(baselines, study_run)
            self.store.settle()

    @contextmanager
    def _lease(self) -> Iterator[None]:
        """On a cluster, be the one command on any machine that hands out this study's jobs."""
        if not self.options.cluster:
            yield
            return
        with Lease(self.store.connection, self.study.name, self.progress.say) as self._leased:
            yield

    def _is_missing(self, baseline: Arm) -> bool:
        """Say whether a run of a baseline is not done."""
        runs = self.plan.runs_of_baseline(baseline)
        return len(self.opened.baselines[baseline.strategy].found(runs)) < len(runs)

    def _do_baselines(self, arms: Sequence[Arm], study_run: str) -> None:
        """Do the baselines that are missing, in this process."""
        if arms:
            from bench.experiment.baseline_runner import do_baseline

            for arm in arms:
                do_baseline(self.opened, arm, study_run)

    def _forget(self) -> None:
        """Let nothing that was done before count; what waits for the store is of before, too."""
        self.store.settle()
        for state in self.opened.baselines.values():
            state.forget()
        for arm in self.plan.arms:
            self.opened.states[arm.strategy].forget()
            self.opened.machine.checkpoints.forget(arm)

    def _is_closed(self) -> bool:
        """Say whether the study's run has ended, with all in it; one killed at the very end has not."""
        found = read.find(self.store, self.plan.key)
        return found is not None and found.ended is not None and write.is_recorded(found, self.plan)

    def _jobs(self) -> list[Job]:
        """Return what is missing, seed by seed: half a study compares all strategies with half the seeds.

        Of a seed those strategies come first that train most: a long one that begins last keeps all waiting.
        """
        wanted = self._wanted_seeds()
        self._todo = {name: set(range(1, seeds + 1)) - self._over[name] for name, seeds in wanted.items()}
        for name, seeds in wanted.items():
            self.progress.extend(name, (self.study.tuning.trials + 1) * seeds)
        longest_first = sorted(wanted, key=_usually_frozen)
        return [
            Job(name, seed) for seed in self.plan.seeds for name in longest_first if seed in self._todo[name]
        ]

    def _wanted_seeds(self) -> dict[str, int]:
        """Return how many seeds each strategy needs, as far as that is known."""
        first = self.study.looks[0]
        if first == self.study.most_seeds or any(len(seeds) < first for seeds in self._over.values()):
            return dict.fromkeys(self._over, first)
        self.store.settle()
        return dict(self.evidence().wanted)

    def _schedule(self, jobs: list[Job], study_run: str) -> None:
        """Have jobs done, here or in processes that each do some of them."""
        self._open_arms(study_run)
        scheduler, work = self._scheduler()
        self.progress.say("loading torch and the source model ...")
        status: Any = "FAILED"
        try:
            scheduler.run(jobs, work, self._on_done, self.progress.on_event)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for strategy in [name for name, seeds in self._todo.items() if seeds]:
                self.store.writer.close(self.opened.states[strategy].run_id, status)

    def _open_arms(self, study_run: str) -> None:
        """Open the run of each arm of which anything is missing."""
        plan = self.plan
        with self.opened.machine.claims.alone("opening", self.study.name):  # or each opens its own
            for arm in plan.arms:
                if self._todo[arm.strategy]:
                    state = self.opened.states[arm.strategy]
                    tags = {**self.opened.tags, "data": plan.dataset.digest, "weights": plan.origin.identity}
                    tags |= state.tags if self.options.fresh else {}  # else the store says it already
                    state.run_id = self.store.open_arm(study_run, arm, tags, {"strategy": arm.strategy})

    def _scheduler(self) -> tuple[Scheduler, Work]:
        options = self.options
        pixels = self.study.training.batch_size * self.study.target.image_size**2
        if options.cluster:
            return self._on_cluster(pixels)
        count = choose_count(options.jobs, options.device, self._most_at_once(), pixels)
        if count == 1:
            return SerialScheduler(), WorkHere(self.opened)
        self.progress.side_by_side = count
        gpus = gpus if len(gpus := gpus_for(options.device)) > 1 else []
        shared = replace(options, threads=options.threads or max(1, usable_cpus() // count))
        return ProcessScheduler(count, gpus), self._work_elsewhere(shared)

    def _on_cluster(self, pixels: int) -> tuple[Scheduler, Work]:
        options = self.options
        share = share_of(options.device, pixels, self._most_at_once())
        self.progress.side_by_side = min(share.at_once, options.jobs or share.at_once)
        address = self.store.connection.uri
        each = replace(
            options, device=share.device, threads=share.threads, tracking_uri=address, cluster=None
        )
        return RayScheduler(share, options.jobs), self._work_elsewhere(each, apart=True)

    def _work_elsewhere(self, options: Options, *, apart: bool = False) -> WorkElsewhere:
        arms = {strategy: state.taken() for strategy, state in self.opened.states.items()}
        experiment_id = self.store.connection.experiment_id
        return WorkElsewhere(self.study, options, experiment_id, arms, self.plan.key, apart)

    def _on_done(self, job: Job) -> None:
        """Note that a job is done."""
        if self._leased:
            self._leased.check()
        todo = self._todo[job.strategy]
        todo -= {job.seed}
        self._over[job.strategy].add(job.seed)
        if not todo:
            self.store.writer.close(self.opened.states[job.strategy].run_id, "FINISHED")
            self.progress.end_arm(job.strategy)

    def _most_at_once(self) -> int:
        """Return how many jobs there are to do side by side.

        Of the whole study and not of what is missing: another number of processes has other threads each, and
        with them a study that is gone on with would get other last bits.
        """
        return len(self.plan.arms) * self.study.most_seeds

    def _find_done(self, strategy: str) -> set[int]:
        """Return the seeds of an arm that are done; show what is."""
        state = self.opened.states[strategy]
        tuners = state.tuners()
        trials, done = sum(len(tuner.finished) for tuner in tuners.values()), state.done(tuners)
        self.progress.skip_runs(strategy, trials, f"{trials} trials found done")
        self.progress.skip_runs(strategy, len(done), f"{len(done)} seeds found done")
        return set(done)

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
            self.store.fail_leftovers(run_id, at_the_end=True, alone=self._leased is not None)
            self.store.writer.close(run_id, status)

    def _open_run(self) -> str:
        """Open the study's run, with all that a report needs to know of the study; return its id."""
        study, store = self.study, self.store
        tags = {**self.opened.tags, "question": study.question}
        labels = f", {tags['train_labels']} labels" if self.options.sizes else ""
        settings = flat(study.model_dump(mode="json"))
        with self.opened.machine.claims.alone("opening", study.name):  # or each opens its own
            run_id = store.open_study(study.name, self.plan.key, tags, settings, labels)
        store.fail_leftovers(run_id, alone=self._leased is not None)
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
            found += state.done(state.tuners()).values()
        for arm in self.plan.baselines:
            found += self.opened.baselines[arm.strategy].found(self.plan.runs_of_baseline(arm)).values()
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
