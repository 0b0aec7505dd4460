"""`bench` on a tiny study, in processes of their own that begin at once and can be killed.

Not in conftest.py: a process finds what it is to run by the name of its module, and two have that one.
"""

import multiprocessing
import os
import sys
import time

import pandas as pd

from bench.tracking.client import SETTINGS

PRELOADED = [
    "bench.experiment.run_executor",
    "bench.experiment.study_runner",
    "bench.tuning.tuner",
    "bench.report.study_report",
    "timm",
    "mlflow.store.tracking.sqlalchemy_store",
]
APART = [
    "train_seconds",
    "eval_seconds",
    "cached_seconds",
    "feature_seconds",
    "peak_memory_bytes",
    "mlflow_run_id",
]


def clock_is_set_back():
    """Let the clock go back by an hour again and again."""
    real, asked = time.time_ns, [0]

    def set_back():
        asked[0] += 1
        return real() - asked[0] // 20 * 3600 * 1_000_000_000

    time.time_ns, time.time = set_back, lambda: set_back() / 1e9


def memory_is_small():
    """Let a training step have room for three images only."""
    import torch

    from bench.training.targets.classification import Classes

    loss = Classes.loss

    def loss_of_three(self, logits, *others):
        if len(logits) > 3:
            raise torch.OutOfMemoryError("no room for more than three images")
        return loss(self, logits, *others)

    Classes.loss = loss_of_three


def one_thread():
    """Train as on one processor: in steps as small as these, threads only wait for each other."""
    os.sched_getaffinity = lambda _process: {0}


def reports_beside_another(folder, name):
    """Draw the report when another command does, and publish it when that one has had time to write its own.

    The two meet in a folder, where each leaves files of its name.
    """
    from bench.experiment.study_runner import StudyRunner
    from bench.study_record import publish as publishing

    one_thread()
    run, publish = StudyRunner.run, publishing.publish

    def wait_for_both(point, seconds):
        (folder / f"{point} {name}").touch()
        until = time.monotonic() + seconds
        while len(list(folder.glob(f"{point} *"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)

    def run_and_wait(self):
        run(self)
        wait_for_both("done", 200)

    def wait_and_publish(*arguments):
        wait_for_both("written", 10)
        publish(*arguments)

    StudyRunner.run, publishing.publish = run_and_wait, wait_and_publish


def private_umask():
    os.umask(0o077)


def main_of(folder, home, arguments, environment, logs, before):
    """Be `bench` in a process that has everything imported; `logs`: for what it answers and what it says."""
    if before:
        before()
    for descriptor, file in enumerate(logs, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(folder)
    os.environ.update(BENCH_HOME=str(home), **environment)
    sys.argv = ["bench", *map(str, arguments)]
    from bench.cli.app import main

    sys.exit(main())


def preloaded():
    """What starts processes that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    os.environ.update(SETTINGS)  # as `bench` does before it imports mlflow
    context.set_forkserver_preload(PRELOADED)
    return context


class Bench:
    """Starts `bench run` on the tiny study."""

    def __init__(self, folder):
        self.folder, self.context = folder, preloaded()

    def start(self, home, *arguments, log=None, before=None, **environment):
        command = ["run", "--study", "tiny.yaml", "--device", "cpu", "--output", home / "reports", *arguments]
        settings = {"BENCH_CHECKPOINT_SECONDS": "0.2", **environment}
        home.mkdir(parents=True, exist_ok=True)
        process = self.context.Process(
            target=main_of,
            args=(self.folder, home, command, settings, [str(log or home / "log")] * 2, before),
        )
        process.start()
        return process

    def finish(self, home, *arguments, log=None, before=None, **environment):
        process = self.start(home, *arguments, log=log, before=before, **environment)
        process.join(300)
        assert process.exitcode == 0, (log or home / "log").read_text()[-3000:]
        return rows(home)


def rows(home):
    """The rows of a study's final runs and trials, without what differs from one time to the next."""
    named = home / "reports" / "tiny"  # with data that are not the study's it has a name of its own
    report = named if named.exists() else next((home / "reports").glob("tiny-*"))
    return [pd.read_csv(report / name, dtype=str).drop(columns=APART) for name in ("runs.csv", "trials.csv")]
