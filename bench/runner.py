"""Run a plan: tune each arm, do the final runs, and gather what came of them."""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import data, paths
from bench.data.dataset import Dataset, Split
from bench.environment import usable_cpus
from bench.errors import InputError
from bench.jobs import Channel, Job, choose_count, in_turn, side_by_side
from bench.planning import TUNING_SEED, Plan, plan
from bench.progress import Progress, Relay
from bench.spec import PROTOCOL, Arm, Purpose, RunResult, RunSpec, Status, Value
from bench.strategies import STRATEGIES
from bench.study import Study
from bench.tracking import address
from bench.tracking.live import LiveRun
from bench.tracking.store import RunStore, system_metrics
from bench.tuning import Asked, Tuner

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis import Evidence
    from bench.worker import Finished, KeepGoing, Worker

EXPERIMENT = "bench/{study}"
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


@dataclass(frozen=True)
class Run:
    """A run that is to be done, how it is called while it goes on, and what judges its epochs."""

    spec: RunSpec
    doing: str
    judge: "KeepGoing"
    tags: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a job gives: the id of the arm's run, and the seeds that are to be done next, by job."""

    arm_run: str
    seeds: list[tuple[int, ...]]


class Runner:
    """Runs a plan; what is done already is found, not done again."""

    def __init__(self, plan: Plan, options: Options, progress: Progress) -> None:
        self.plan, self.study, self.options, self.progress = plan, plan.study, options, progress
        self.store = RunStore(options.tracking_uri, EXPERIMENT.format(study=plan.study.name))
        self._arms = {arm.strategy: arm for arm in plan.arms}
        self._open: dict[str, str] = {}  # strategy to the id of its arm's run
        self._todo: dict[str, set[int]] = {}  # strategy to seeds that are not done yet
        self._worker: Worker | None = None

    @property
    def worker(self) -> "Worker":
        """The worker, built when the first run is needed: a finished study never imports torch."""
        if self._worker is None:
            from bench.worker import Worker

            options = self.options
            self._worker = Worker(
                self.study, self.plan.dataset, self.plan.origin, options.device, options.threads
            )
        return self._worker

    def run(self) -> "Evidence":
        """Do all runs that are missing and return what is known of the study."""
        with _alone(self.study.name):
            for arm in self.plan.arms:
                if self.options.fresh:
                    self._tuner(arm).forget()
                runs = self.study.tuning.trials + self.study.seeds
                self.progress.plan(arm.strategy, runs, self.study.training.epochs)
            if jobs := [Job(arm.strategy) for arm in self._longest_first() if self._is_missing(arm)]:
                with self._study_run() as study_run:
                    self._share_out(jobs, study_run)
        return self.evidence()

    def _share_out(self, jobs: list[Job], study_run: str) -> None:
        """Do the jobs here, or in processes that each do some of them."""
        options = self.options
        pixels = self.study.training.batch_size * self.study.target.image_size**2
        count = choose_count(options.jobs, options.device, max(len(jobs), self.study.seeds), pixels)
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
                side_by_side(jobs, count, serve, (self.study, shared, study_run), self._after, relay)
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            for arm_run in self._open.values():
                self.store.close(arm_run, status)

    def do(self, job: Job, study_run: str) -> Outcome:
        """Do a job; tuning gives what comes after it."""
        arm, tuner = self._arms[job.strategy], self._tuner(self._arms[job.strategy])
        best = tuner.result().best
        if arm.strategy not in self._open:
            self._open[arm.strategy] = self._open_arm(arm, study_run, best)
        arm_run = self._open[arm.strategy]
        together = self.worker.trains_only_head(arm)
        if job.seeds:
            self._final(arm, arm_run, job.seeds, best)
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
            self.store.close(self._open.pop(job.strategy), "FINISHED")
            self.progress.end_arm(job.strategy)
        return [Job(job.strategy, seeds) for seeds in outcome.seeds]

    def _longest_first(self) -> list[Arm]:
        """Return the arms, those first that train most: a long one that begins last keeps all waiting."""

        def frozen(arm: Arm) -> int:
            strategy = STRATEGIES[arm.strategy]
            return strategy.plan(USUAL_STAGES, strategy.defaults).frozen_prefix

        return sorted(self.plan.arms, key=frozen)

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
        tags = {**_scenario(study), "question": study.question}
        run_id = self.store.open_study(study.name, self.plan.key, tags, _flat(study.model_dump(mode="json")))
        self.store.fail_leftovers(run_id)
        dataset = self.plan.dataset
        self.store.log_dataset(run_id, dataset.name, dataset.digest, dataset.origin)
        status: Any = "FAILED"
        try:
            with system_metrics(self.store, run_id):
                yield run_id
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self.store.close(run_id, status)

    def _tuner(self, arm: Arm) -> Tuner:
        journal = paths.home() / "optuna" / f"{self.study.name}.journal"
        strategy = STRATEGIES[arm.strategy]
        return Tuner(arm, strategy, self.study.tuning, self.study.training.epochs, self.study.metric, journal)

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
        found = self.store.find(wanted) if not self.options.fresh else {}
        return [seed for key, seed in wanted.items() if key not in found]

    def _open_arm(self, arm: Arm, study_run: str, best: Mapping[str, Value] | None) -> str:
        model_plan = self.worker.plan_text(arm, self._chosen(arm, best))
        tags = {
            **_scenario(self.study),
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

        runs = [
            Run(
                RunSpec(arm, trial.params, TUNING_SEED, Purpose.TRIAL),
                f"trial {trial.number + 1}/{self.study.tuning.trials}",
                judge(trial),
                {"trial": trial.number},
            )
            for trial in asked
        ]
        return (finished.result for finished in self._do(runs, arm_run))

    def _final(self, arm: Arm, arm_run: str, seeds: Sequence[int], best: Mapping[str, Value] | None) -> None:
        params = self._chosen(arm, best)
        specs = [RunSpec(arm, params, seed, Purpose.FINAL) for seed in seeds]
        runs = [Run(spec, f"seed {spec.seed}/{self.study.seeds}", lambda _row: True, {}) for spec in specs]
        for _ in self._do(runs, arm_run):
            pass

    def _do(self, runs: Sequence[Run], arm_run: str) -> Iterator["Finished"]:
        """Do runs, together where they can be, show them and log them."""
        lives: list[LiveRun] = []
        with _ended_whatever_happens(lives):
            lives += [self._begin(run, arm_run) for run in runs]
            goings = [self._watched(run, live) for run, live in zip(runs, lives, strict=True)]
            splits = [self.plan.splits[run.spec.seed] for run in runs]
            together = self.worker.run_together([run.spec for run in runs], splits, goings)
            for run, finished in zip(runs, together, strict=True):
                with tempfile.TemporaryDirectory() as folder:
                    lives[0].finish(finished.result, _files(finished, self.plan.dataset, Path(folder)))
                del lives[0]
                outcome = _outcome(finished.result, self.study.metric)
                self.progress.end_run(run.spec.arm.strategy, run.doing, outcome)
                yield finished

    def _begin(self, run: Run, arm_run: str) -> LiveRun:
        """Open a run in the store and show that it has begun."""
        spec, dataset = run.spec, self.plan.dataset
        self.progress.start_run(spec.arm.strategy, run.doing)
        parts = self.plan.splits[spec.seed]
        params = {**_flat(self.study.training.model_dump(mode="json")), **_sizes(parts), "split": parts.hash}
        tags = {**_scenario(self.study), **run.tags}
        live = self.store.start(spec, arm_run, run.doing.partition("/")[0], params, tags)
        if spec.purpose is Purpose.FINAL:
            self.store.log_dataset(live.run_id, dataset.name, dataset.digest, dataset.origin)
        return live

    def _watched(self, run: Run, live: LiveRun) -> "KeepGoing":
        """Return what judges a run's epochs, and logs and shows them."""

        def after_epoch(row: dict[str, float]) -> bool:
            live.log_epoch(int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})
            self.progress.end_epoch(run.spec.arm.strategy, run.doing, row[f"val/{self.study.metric}"])
            return run.judge(row)

        return after_epoch

    def evidence(self) -> "Evidence":
        """Return what the store holds of this plan.

        Raises:
            InputError: if a run is missing.
        """
        from bench.analysis import Evidence

        keys: list[str] = []
        for arm in self.plan.arms:
            tuned = self._tuner(arm).result()
            if tuned.trials < self.study.tuning.trials:
                have = f"{tuned.trials} of {self.study.tuning.trials} trials of {arm.strategy} are done"
                raise InputError(
                    f"the study is not finished: {have}", self.study.name, "run `bench run` first"
                )
            keys += self._finals(arm, tuned.best)
        runs = self.store.runs_frame(keys)
        if missing := len(set(keys) - set(runs["run_key"])):
            what = f"{missing} of {len(keys)} final runs are not in the store"
            raise InputError(f"the study is not finished: {what}", self.study.name, "run `bench run` first")
        done = runs[runs["status"] == "done"]["mlflow_run_id"]
        trials = self.store.trials_frame([arm.key for arm in self.plan.arms])
        trials = trials[trials["trial"] < self.study.tuning.trials]
        return Evidence(
            study=self.study,
            runs=runs,
            trials=trials,
            curves=self.store.curves_frame(done),
            predictions=self.store.predictions_frame(done),
            provenance=self._provenance(list(done), _seconds(runs) + _seconds(trials)),
        )

    def _provenance(self, done: list[str], seconds: float) -> dict[str, Any]:
        """Say where the numbers come from; the environment is that of the first final run."""
        environments = [self.store.environment(run_id) for run_id in done]
        plan, split = self.plan, self.plan.splits[1]
        duplicates = data.near_duplicates(plan.dataset, split)
        return {
            "command": shlex.join(["bench", "run", *sys.argv[2:]]),
            "protocol": PROTOCOL,
            "data": plan.dataset.name,
            "data origin": plan.dataset.origin,
            "data licence": plan.dataset.licence,
            "data digest": plan.dataset.digest,
            "classes": len(plan.dataset.classes),
            "images": _sizes(split),
            "split hash of seed 1": split.hash,
            "images left out": [f"{r.name}: {r.reason}" for r in plan.dataset.rejected],
            "near-duplicates across parts": [" = ".join(map(str, pair)) for pair in duplicates],
            "source weights": plan.origin.text,
            "source weights identity": plan.origin.identity,
            "computed on": sorted({f"{e.get('device')} {e.get('precision')}" for e in environments}),
            "environment": environments[0] if environments else {},
            "tracking store": address.shown(self.store.uri).replace(f"{Path.cwd()}/", ""),
            "seconds of all runs together": round(seconds),
        }


def serve(channel: Channel, study: Study, options: Options, study_run: str) -> None:
    """Do jobs of a study in a process of the crew; what there is to show is shown by the first process."""
    runner = Runner(plan(study, options.folder), options, Relay(study.metric, channel.note))
    channel.jobs(lambda job: runner.do(job, study_run))


@contextmanager
def _ended_whatever_happens(lives: list[LiveRun]) -> Iterator[None]:
    """End runs in the store as KILLED if the process is interrupted or something unforeseen is raised."""
    try:
        yield
    except BaseException:
        for live in lives:
            live.abandon()
        raise


@contextmanager
def _alone(study: str) -> Iterator[None]:
    """Hold the study's lock, or say at once that another process holds it."""
    try:
        with paths.locked(paths.home() / "locks" / f"{study}.lock", wait=False):
            yield
    except BlockingIOError as error:
        raise InputError(f"another process is running the study {study}", str(paths.home())) from error


def _scenario(study: Study) -> dict[str, str]:
    scenario = study.scenario
    return {"size": scenario.size, "similarity": scenario.similarity} if scenario else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _seconds(frame: "pd.DataFrame") -> float:
    """Return the seconds of training and evaluation in a frame of runs."""
    return float(frame[["train_seconds", "eval_seconds"]].sum().sum())


def _sizes(split: Split) -> dict[str, int]:
    return {"train images": len(split.train), "val images": len(split.val), "test images": len(split.test)}


def _outcome(result: RunResult, metric: str) -> str:
    if result.status is Status.FAILED:
        return f"failed: {result.error}"
    if result.status is Status.PRUNED:
        return f"pruned after epoch {len(result.curve)}, val {metric} {result.metrics[f'val/{metric}']:.3f}"
    seconds = result.train_seconds + result.eval_seconds
    return f"val {metric} {result.metrics[f'val/{metric}']:.3f} in {seconds:.1f} s"


def _files(finished: "Finished", dataset: Dataset, folder: Path) -> dict[str, Path]:
    """Write a final run's weights and predictions to `folder`."""
    if finished.logits is None or finished.test is None:
        return {}
    from safetensors.torch import save_file

    weights, predictions = folder / "weights.safetensors", folder / "predictions.csv"
    save_file({name: tensor.contiguous() for name, tensor in finished.weights.items()}, weights)
    shifted = np.exp(finished.logits - finished.logits.max(1, keepdims=True))
    confidence = shifted.max(1) / shifted.sum(1)
    import pandas as pd

    pd.DataFrame(
        {
            "image": [dataset.names[i] for i in finished.test],
            "target": [dataset.classes[i] for i in dataset.labels[finished.test]],
            "prediction": [dataset.classes[i] for i in finished.logits.argmax(1)],
            "probability": confidence.round(6),
        }
    ).to_csv(predictions, index=False)
    return {weights.name: weights, predictions.name: predictions}
