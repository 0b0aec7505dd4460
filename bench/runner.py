"""Run a plan: tune each arm, do the final runs, and gather what came of them."""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
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
from bench.tracking.store import RunStore, system_metrics
from bench.tuning import Report, Tuner

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis import Evidence
    from bench.worker import Finished, Worker

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
        count = choose_count(options.jobs, options.device, max(len(jobs), self.study.seeds))
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

    def do(self, job: Job, study_run: str) -> tuple[str, list[int]]:
        """Do a job; return the id of the arm's run and the seeds that remain to be done."""
        arm, tuner = self._arms[job.strategy], self._tuner(self._arms[job.strategy])
        if job.seed is None:
            arm_run = self._open_arm(arm, study_run, tuner.result().best)
            best = tuner.run(lambda *trial: self._trial(arm, arm_run, *trial)).best
            self._open[arm.strategy] = self._open_arm(arm, study_run, best)
            return arm_run, self._missing(arm, best)
        best = tuner.result().best
        if arm.strategy not in self._open:
            self._open[arm.strategy] = self._open_arm(arm, study_run, best)
        arm_run = self._open[arm.strategy]
        self._final(RunSpec(arm, self._chosen(arm, best), job.seed, Purpose.FINAL), arm_run)
        return arm_run, []

    def _after(self, job: Job, outcome: tuple[str, list[int]]) -> list[Job]:
        """Note that a job is done; return the jobs that are possible now."""
        arm_run, seeds = outcome
        left = self._todo.setdefault(job.strategy, set())
        if job.seed is None:
            self._open[job.strategy] = arm_run
            left |= set(seeds)
            found = self.study.seeds - len(seeds)
            self.progress.skip_runs(job.strategy, found, f"{found} seeds found done")
        else:
            left.remove(job.seed)
        if not left:
            self.store.close(self._open.pop(job.strategy), "FINISHED")
            self.progress.end_arm(job.strategy)
        return [Job(job.strategy, seed) for seed in seeds]

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

    def _trial(
        self, arm: Arm, arm_run: str, number: int, params: Mapping[str, Value], report: Report
    ) -> RunResult:
        spec = RunSpec(arm, params, TUNING_SEED, Purpose.TRIAL)
        metric = f"val/{self.study.metric}"
        doing = f"trial {number + 1}/{self.study.tuning.trials}"

        def judge(row: Mapping[str, float]) -> bool:
            last = int(row["epoch"]) + 1 == self.study.training.epochs
            return report(int(row["epoch"]) + 1, row[metric]) or last

        return self._do(spec, arm_run, doing, judge, {"trial": number}).result

    def _final(self, spec: RunSpec, arm_run: str) -> None:
        self._do(spec, arm_run, f"seed {spec.seed}/{self.study.seeds}", lambda _row: True, {})

    def _do(self, spec: RunSpec, arm_run: str, doing: str, judge: Any, tags: Mapping[str, Any]) -> "Finished":
        """Do a run, show it and log it."""
        strategy, metric = spec.arm.strategy, f"val/{self.study.metric}"
        worker = self.worker
        self.progress.start_run(strategy, doing)
        parts = self.plan.splits[spec.seed]
        params = {**_flat(self.study.training.model_dump(mode="json")), **_sizes(parts), "split": parts.hash}
        name = doing.partition("/")[0]
        live = self.store.start(spec, arm_run, name, params, {**_scenario(self.study), **tags})

        def after_epoch(row: Mapping[str, float]) -> bool:
            live.log_epoch(int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})
            self.progress.end_epoch(strategy, doing, row[metric])
            return bool(judge(row))

        if spec.purpose is Purpose.FINAL:
            dataset = self.plan.dataset
            self.store.log_dataset(live.run_id, dataset.name, dataset.digest, dataset.origin)
        with _ended_whatever_happens(live), tempfile.TemporaryDirectory() as folder:
            finished = worker.run(spec, parts, after_epoch)
            live.finish(finished.result, _files(finished, self.plan.dataset, Path(folder)))
        self.progress.end_run(strategy, doing, _outcome(finished.result, self.study.metric))
        return finished

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
def _ended_whatever_happens(live: Any) -> Iterator[None]:
    """End a run in the store as KILLED if the process is interrupted or something unforeseen is raised."""
    try:
        yield
    except BaseException:
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
