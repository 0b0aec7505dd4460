"""Run a plan: tune each arm, and do the final runs."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
    Value,
)
from bench.experiment.plan import TUNING_SEED, Plan, plan
from bench.experiment.progress import Progress, Relay
from bench.experiment.run_logger import Recorder, Run
from bench.experiment.scheduler import (
    Channel,
    Job,
    choose_count,
    in_turn,
    side_by_side,
)
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Study
from bench.study_record import facts, read, write
from bench.study_record.facts import flat
from bench.study_record.read import EXPERIMENT, GENERATION
from bench.system import locations, locks
from bench.system.hardware import usable_cpus
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.store import open_study_store
from bench.tracking.system_metrics import system_metrics
from bench.tuning.tuner import Asked, Tuner

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence
    from bench.experiment.run_executor import KeepGoing, RunExecutor
    from bench.training.setup import TrainingSetup

POLL_SECONDS = 0.5  # until another process is asked again whether it is done
USUAL_STAGES = 6  # only to compare how much strategies train


@dataclass(frozen=True)
class Options:
    """How a study is run; nothing here moves a number but through the device and its threads."""

    folder: Path | None = None  # replaces target.data
    device: str = "auto"
    tracking_uri: str | None = None
    fresh: bool = False  # forget what was done before
    jobs: int | None = None  # processes; None: as many as the device has room for
    threads: int | None = None  # of each process; None: all processors
    deterministic: bool = False  # the same bits each time on a GPU too
    budget: str = "default"  # the name of the preset, which `bench report` looks for
    sizes: bool = False  # one of several numbers of training labels, which `bench report` passes over
    began: float = field(default_factory=time.time)  # seconds since 1970: an earlier failure is tried again


@dataclass(frozen=True)
class Outcome:
    """What a job gives: the id of the arm's run, and the seeds that are to be done next, by job."""

    arm_run: str
    seeds: list[tuple[int, ...]]


class Runner:
    """Runs a plan; what is done already is found, not done again."""

    def __init__(self, plan: Plan, options: Options, progress: Progress, experiment_id: str = "") -> None:
        self.plan, self.study, self.options, self.progress = plan, plan.study, options, progress
        experiment = EXPERIMENT.format(study=plan.study.name)
        self.store = open_study_store(options.tracking_uri, experiment, experiment_id)
        self._arms = {arm.strategy: arm for arm in plan.arms}
        self._open: dict[str, str] = {}  # strategy to the id of its arm's run
        self._generations: dict[str, str] = {}  # by strategy
        self._todo: dict[str, set[int]] = {}  # strategy to seeds that are not done yet
        self._elsewhere = set[Job]()  # said to be done by another process

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What all runs of the study are tagged with: its scenario, and how many labels they train on."""
        scenario = self.study.scenario
        tags = {"size": scenario.size, "similarity": scenario.similarity} if scenario else {}
        return {**tags, "train_labels": len(self.plan.splits[1].train)}

    @cached_property
    def setup(self) -> "TrainingSetup":
        """What runs train on, built when the first run is needed: a finished study never imports torch."""
        from bench.training.setup import TrainingSetup

        return TrainingSetup(
            self.study,
            self.plan.dataset,
            self.plan.origin,
            self.options.device,
            self.options.threads,
            deterministic=self.options.deterministic,
        )

    @cached_property
    def executor(self) -> "RunExecutor":
        """What executes the runs."""
        from bench.experiment.run_executor import RunExecutor

        return RunExecutor(self.setup)

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.plan, self.store, self.progress, self.executor, self._shared)

    def run(self) -> None:
        """Do all runs that are missing."""
        with _in_use(self.study.name, alone=self.options.fresh):
            if self.options.fresh:
                self._forget()
            for arm in self.plan.arms:
                runs = self.study.tuning.trials + self.study.seeds
                self.progress.plan(arm.strategy, runs, self.study.training.epochs)
            jobs = [Job(arm.strategy) for arm in self._longest_first() if self._is_missing(arm)]
            if jobs or not self._is_closed():
                with self._study_run() as study_run:
                    self._share_out(jobs, study_run)
            self.store.settle()

    def _forget(self) -> None:
        """Let nothing that was done before count; what waits for the store is of before, too."""
        self.store.settle()
        for arm in self.plan.arms:
            self._tuner(arm).forget()
            for path in (locations.home() / "checkpoints").glob(f"*{arm.key}*"):
                path.unlink(missing_ok=True)

    def _is_closed(self) -> bool:
        """Say whether the study's run has ended, with all in it; one killed at the very end has not."""
        found = read.find(self.store, self.plan.key)
        return found is not None and found.ended is not None and write.is_recorded(found, self.plan)

    def _share_out(self, jobs: list[Job], study_run: str) -> None:
        """Do the jobs here, or in processes that each do some of them."""
        if not jobs:
            return
        options = self.options
        pixels = self.study.training.batch_size * self.study.target.image_size**2
        count = choose_count(options.jobs, options.device, self._most_at_once(), pixels)
        self.progress.say("loading torch and the source model ...")
        status: Any = "FAILED"
        try:
            if count == 1:
                in_turn(jobs, lambda job: self.do(job, study_run), self._after)
            else:
                threads = options.threads or max(1, usable_cpus() // count)
                shared = replace(options, threads=threads)
                self.progress.side_by_side = count
                relay = self.progress.take
                arguments = (self.study, shared, study_run, self.store.connection.experiment_id)
                side_by_side(jobs, count, serve, arguments, self._after, relay)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for arm_run in self._open.values():
                self.store.writer.close(arm_run, status)

    def do(self, job: Job, study_run: str) -> Outcome | None:
        """Do a job, or return None after a while if another process is at it."""
        together = self.setup.trains_only_head(self._arms[job.strategy])
        part = bool(job.seeds) if together else job.seeds  # seeds that train together are one piece of work
        name = digest([self._arms[job.strategy].key, part])[:32]
        with locks.claimed(locks.lock_file("jobs", name)) as ours:
            if ours:
                return self._do_claimed(job, study_run, together)
        if job not in self._elsewhere:
            self.progress.say(f"{job}: is being done by another process")
            self._elsewhere.add(job)
        time.sleep(POLL_SECONDS)
        return None

    def _do_claimed(self, job: Job, study_run: str, together: bool) -> Outcome:
        """Do what another process has not done meanwhile; tuning gives what comes after it."""
        arm, tuner = self._arms[job.strategy], self._tuner(self._arms[job.strategy])
        best = tuner.result().best
        if arm.strategy not in self._open:
            self._open[arm.strategy] = self._open_arm(arm, study_run, best)
        arm_run = self._open[arm.strategy]
        if job.seeds:
            seeds = self._not_ended(arm, job.seeds, best)
            self.progress.skip_runs(arm.strategy, len(job.seeds) - len(seeds), f"{job}: found done")
            if seeds:
                self._final(arm, arm_run, seeds, best, self.plan.seeds if together else seeds)
            return Outcome(arm_run, [])
        best = tuner.run(lambda asked: self._trials(arm, arm_run, asked), together=together).best
        self._open_arm(arm, study_run, best)
        seeds = self._missing(arm, best)
        return Outcome(arm_run, [tuple(seeds)] if together and seeds else [(seed,) for seed in seeds])

    def _after(self, job: Job, outcome: Outcome) -> list[Job]:
        """Note that a job is done; return the jobs that are possible now."""
        left = self._todo.setdefault(job.strategy, set())
        left -= set(job.seeds)
        if not job.seeds:
            self._open[job.strategy] = outcome.arm_run
            left |= {seed for seeds in outcome.seeds for seed in seeds}
            found = self.study.seeds - len(left)
            self.progress.skip_runs(job.strategy, found, f"{found} seeds found done")
        if not left:
            self.store.writer.close(self._open.pop(job.strategy), "FINISHED")
            self.progress.end_arm(job.strategy)
        return [Job(job.strategy, seeds) for seeds in outcome.seeds]

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
        tuned = self._tuner(arm).result()
        self.progress.skip_runs(arm.strategy, tuned.trials, f"{tuned.trials} trials found done")
        if tuned.trials < self.study.tuning.trials or self._missing(arm, tuned.best):
            return True
        self.progress.skip_runs(arm.strategy, self.study.seeds, f"{self.study.seeds} seeds found done")
        self.progress.end_arm(arm.strategy)
        return False

    @contextmanager
    def _study_run(self) -> Iterator[str]:
        """Keep the study's run open in the store while its arms run."""
        study = self.study
        tags = {**self._shared, "question": study.question}
        labels = f", {tags['train_labels']} labels" if self.options.sizes else ""
        settings = flat(study.model_dump(mode="json"))
        with locks.locked(locks.lock_file("opening", study.name)):  # or each opens its own
            run_id = self.store.open_study(study.name, self.plan.key, tags, settings, labels)
        self.store.fail_leftovers(run_id)
        dataset = self.plan.dataset
        self.store.writer.log_dataset(run_id, dataset.name, dataset.digest, dataset.origin)
        found = read.find(self.store, self.plan.key)
        if found is None or not write.is_recorded(found, self.plan):
            write.record(self.store, run_id, self.plan, self.options.budget, sizes=self.options.sizes)
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

    def _tuner(self, arm: Arm) -> Tuner:
        journal = locations.home() / "optuna" / f"{self.study.name}.journal"
        return Tuner(arm, STRATEGIES[arm.strategy], self.study, journal, self.options.began)

    def _of_now(self, arm: Arm) -> dict[str, str]:
        """Return the tag of the arm's runs since they were forgotten with --fresh, if they ever were."""
        if arm.strategy not in self._generations:  # asked for once: that reads the whole journal
            self._generations[arm.strategy] = self._tuner(arm).generation
        generation = self._generations[arm.strategy]
        return {GENERATION: generation} if generation else {}

    def _chosen(self, arm: Arm, best: Mapping[str, Value] | None) -> Mapping[str, Value]:
        """Return the best hyperparameters; the defaults if every trial failed."""
        return best if best is not None else STRATEGIES[arm.strategy].defaults

    def _finals(self, arm: Arm, best: Mapping[str, Value] | None) -> dict[str, int]:
        """Return the keys of the arm's final runs, and their seeds."""
        params = self._chosen(arm, best)
        return {RunSpec(arm, params, seed, Purpose.FINAL).key: seed for seed in self.plan.seeds}

    def _missing(self, arm: Arm, best: Mapping[str, Value] | None) -> list[int]:
        """Return the seeds whose final run is not done."""
        wanted = self._finals(arm, best)
        found = self._found(arm, wanted)
        return [seed for key, seed in wanted.items() if key not in found]

    def _found(self, arm: Arm, keys: Iterable[str]) -> Mapping[str, FoundRun]:
        """Return the arm's final runs with these keys that are done."""
        return self.store.find(keys, {"bench.arm_key": arm.key, **self._of_now(arm)})

    def _not_ended(self, arm: Arm, seeds: Sequence[int], best: Mapping[str, Value] | None) -> Sequence[int]:
        """Return the seeds whose final run was neither done nor, since this study was begun, failed."""
        params, tags = self._chosen(arm, best), self._of_now(arm)
        keys = {seed: RunSpec(arm, params, seed, Purpose.FINAL).key for seed in seeds}
        return [seed for seed, key in keys.items() if not self.store.has_ended(key, self.options.began, tags)]

    def _open_arm(self, arm: Arm, study_run: str, best: Mapping[str, Value] | None) -> str:
        model_plan = self.setup.plan_text(arm, self._chosen(arm, best))
        tags = {
            **self._shared,
            "data": self.plan.dataset.digest,
            "weights": self.plan.origin.identity,
        }
        tags |= {f"best.{name}": str(value) for name, value in (best or {}).items()}
        return self.store.open_arm(study_run, arm, tags, {"strategy": arm.strategy}, model_plan)

    def _trials(self, arm: Arm, arm_run: str, asked: Sequence[Asked]) -> Iterator[RunResult]:
        """Run trials that were asked for together."""
        last, metric = self.study.training.epochs, f"val/{self.study.metric}"

        def judge(trial: Asked) -> "KeepGoing":
            return lambda row: (
                trial.report(int(row["epoch"]) + 1, row[metric]) or int(row["epoch"]) + 1 == last
            )

        specs = [RunSpec(arm, trial.params, TUNING_SEED, Purpose.TRIAL) for trial in asked]
        tuned = {"bench.tuning": facts.tuning_identity(self.study), **self._of_now(arm)}
        tags = [{"trial": str(trial.number), **tuned} for trial in asked]
        stored = [
            self._stored(spec, own) if trial.again else None
            for spec, trial, own in zip(specs, asked, tags, strict=True)
        ]
        runs = [
            Run(
                spec,
                f"trial {trial.number + 1}/{self.study.tuning.trials}",
                judge(trial),
                own,
                known=trial.told or found is not None,
            )
            for spec, trial, own, found in zip(specs, asked, tags, stored, strict=True)
        ]
        done = self._recorder.do(runs, arm_run)
        for trial, found in zip(asked, stored, strict=True):
            if found:  # its process died before it told the tuner
                all(trial.report(int(row["epoch"]) + 1, row[metric]) for row in found.curve)
                yield found
            elif not trial.told:
                yield next(done).result

    def _stored(self, spec: RunSpec, tags: Mapping[str, str]) -> RunResult | None:
        """Return what came of a trial, unless it failed in passing: then it is to be done again."""
        found = self.store.result(spec, tags)
        return None if found and found.status is Status.FAILED and not found.diverged else found

    def _final(
        self,
        arm: Arm,
        arm_run: str,
        seeds: Sequence[int],
        best: Mapping[str, Value] | None,
        group: Sequence[int],
    ) -> None:
        """Do the final runs of some seeds; `group` holds all that are trained together with them."""
        params = self._chosen(arm, best)
        specs = [RunSpec(arm, params, seed, Purpose.FINAL) for seed in group]
        runs = [
            Run(
                spec,
                f"seed {spec.seed}/{self.study.seeds}",
                lambda _row: True,
                self._of_now(arm),
                known=spec.seed not in seeds,
            )
            for spec in specs
        ]
        for _ in self._recorder.do(runs, arm_run):
            pass

    @property
    def fingerprint(self) -> str:
        """Of what a report on this study says: two reports with the same one are the same."""
        found: list[FoundRun] = []
        for arm in self.plan.arms:
            wanted = self._finals(arm, self._tuner(arm).result().best)
            found += self._found(arm, wanted).values()
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


def serve(channel: Channel, study: Study, options: Options, study_run: str, experiment_id: str) -> None:
    """Do jobs of a study in a process of the crew; what there is to show is shown by the first process."""
    relay = Relay(study.metric, channel.note)
    runner = Runner(plan(study, options.folder), options, relay, experiment_id)
    channel.jobs(lambda job: runner.do(job, study_run))


@contextmanager
def _in_use(study: str, alone: bool) -> Iterator[None]:
    """Say to other processes that this one runs the study; one that must be alone with it is refused."""
    try:
        with locks.locked(locks.lock_file("studies", study), wait=False, shared=not alone):
            yield
    except BlockingIOError as error:
        what = f"another process is running the study {study}"
        remedy = "without --fresh it would help it" if alone else "with --fresh, which must be alone"
        raise InputError(what, str(locations.home()), remedy) from error
