"""Jobs done by each scheduler: each once, and a process that dies is replaced."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from bench.core.errors import InputError, StoreAwayError
from bench.experiment.events import JobLost, Message
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.scheduler import processes
from bench.experiment.scheduler.base import Job, JobError
from bench.experiment.scheduler.capacity import choose_count, gpus_for
from bench.experiment.scheduler.processes import ProcessScheduler
from bench.experiment.scheduler.serial import SerialScheduler
from bench.experiment.study_runner import StudyRunner
from bench.study.loading import load
from bench.system.accelerators import visible_gpus
from bench.tracking.frames import SECONDS

OF_FULL = [Job("full", seed) for seed in (1, 2, 3)]
JOBS = [Job(strategy, seed) for seed in (1, 2, 3) for strategy in ("full", "scratch")]
NAMES = sorted(map(str, JOBS))


@dataclass(frozen=True)
class Recording:
    """Write down who did what, and where."""

    folder: str

    def open(self, emit):
        def do(job):
            emit(Message(str(job)))
            with (Path(self.folder) / "log").open("a") as log:
                log.write(f"{os.getpid()} {os.environ['BENCH_HOME']} {job}\n")
            return True

        return do


@dataclass(frozen=True)
class Dying:
    """Die over the job of seed 2, so many times."""

    folder: str
    deaths: int

    def open(self, _emit):
        def do(job):
            marks = list(Path(self.folder).glob("death*"))
            if job.seed == 2 and len(marks) < self.deaths:
                (Path(self.folder) / f"death{len(marks)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return True

        return do


@dataclass(frozen=True)
class Raising:
    error: type[Exception]
    arguments: tuple

    def open(self, emit):
        def do(job):
            emit(Message("tried"))
            raise self.error(*self.arguments)

        return do


class Seeing:
    """Say which GPU a process sees, and take some time, so that there are two."""

    def open(self, emit):
        def do(_job):
            emit(Message(os.environ["CUDA_VISIBLE_DEVICES"]))
            time.sleep(0.2)
            return True

        return do


class Elsewhere:
    """The first job is being done by another command when it is asked for first."""

    def open(self, emit):
        asked = []

        def do(job):
            emit(Message(str(job)))
            asked.append(job)
            return asked != JOBS[:1]

        return do


@pytest.fixture(params=[SerialScheduler(), ProcessScheduler(2)], ids=["serial", "processes"])
def scheduler(request):
    return request.param


def test_every_job_is_done_once_in_the_environment_of_now(scheduler, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    seen, events = [], []
    scheduler.run(JOBS, Recording(str(tmp_path)), seen.append, events.append)
    lines = [line.split(" ", 2) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(job for _, _, job in lines) == sorted(map(str, seen)) == NAMES
    assert sorted(event.text for event in events) == NAMES
    assert {home for _, home, _ in lines} == {str(tmp_path)}
    here = isinstance(scheduler, SerialScheduler)
    assert (str(os.getpid()) in {number for number, _, _ in lines}) == here


def test_what_is_done_elsewhere_is_asked_for_again_after_the_rest():
    events, seen = [], []
    SerialScheduler().run(JOBS[:2], Elsewhere(), seen.append, events.append)
    assert [event.text for event in events] == ["full, seed 1", "scratch, seed 1", "full, seed 1"]
    assert [job.strategy for job in seen] == ["scratch", "full"]


def test_a_process_that_dies_is_replaced_and_its_job_done(tmp_path):
    seen, events = [], []
    ProcessScheduler(2).run(JOBS, Dying(str(tmp_path), 2), seen.append, events.append)
    assert sorted(map(str, seen)) == NAMES
    assert len(events) == 2
    assert {type(event) for event in events} == {JobLost}
    assert {event.ending for event in events} == {"SIGKILL"}


def test_a_job_that_kills_again_and_again_is_given_up(tmp_path):
    job, work = Job("full", 2), Dying(str(tmp_path), 99)
    with pytest.raises(InputError, match="seed 2: 3 processes died over one job, the last by SIGKILL"):
        ProcessScheduler(2).run([job], work, lambda _job: None, lambda _event: None)


def kill_idle():
    """Kill the worker processes of this one that wait for a job."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced(tmp_path):
    """The only one is idle between two jobs."""
    seen, events = [], []

    def on_done(job):
        seen.append(job)
        if job.seed == 1:
            kill_idle()

    work = Dying(str(tmp_path), 0)
    ProcessScheduler(1).run(OF_FULL, work, on_done, events.append)
    assert list(map(str, seen)) == ["full, seed 1", "full, seed 2", "full, seed 3"]
    assert [event.text for event in events] == [
        "bench: a process died while it had nothing to do (SIGKILL); it is replaced"
    ]


def test_a_process_that_dies_as_a_job_is_sent_to_it_is_replaced(tmp_path, monkeypatch):
    """It is found alive, and its end of the pipe is closed when it is sent to."""
    seen, events = [], []
    idle = processes._WorkerPool.idle

    def dying(pool, busy, on_event):
        connection = idle(pool, busy, on_event)
        if len(seen) == 1 and not events:
            pool.workers[connection].kill()
            pool.workers[connection].join()
        return connection

    monkeypatch.setattr(processes._WorkerPool, "idle", dying)
    ProcessScheduler(1).run(OF_FULL, Dying(str(tmp_path), 0), seen.append, events.append)
    assert list(map(str, seen)) == ["full, seed 1", "full, seed 2", "full, seed 3"]
    assert events == [JobLost("full, seed 2", "SIGKILL")]


@pytest.mark.parametrize("error", [InputError, StoreAwayError])
def test_an_input_error_arrives_as_it_was_raised(scheduler, error):
    with pytest.raises(error) as caught:
        scheduler.run(
            JOBS[:1], Raising(error, ("no such thing", "here", "try another")), print, lambda _: None
        )
    assert type(caught.value) is error
    assert (caught.value.what, caught.value.where, caught.value.remedy) == (
        "no such thing",
        "here",
        "try another",
    )


def test_what_a_job_raises_is_raised_once_and_not_tried_again():
    events = []
    with pytest.raises(JobError, match=r"full, seed 1:\n(.*\n)*ZeroDivisionError: by nothing") as caught:
        ProcessScheduler(1).run(JOBS[:1], Raising(ZeroDivisionError, ("by nothing",)), print, events.append)
    assert "in do" in str(caught.value)
    assert events == [Message("tried")]


def test_processes_are_as_many_as_wished_or_as_cores_and_memory_allow():
    small, huge = 32 * 64**2, 10**12
    assert choose_count(8, "cpu", 5, huge) == 5
    assert choose_count(1, "cpu", 5, small) == 1
    assert choose_count(None, "cuda:1", 5, small) == 1
    assert choose_count(None, "cpu", 5, huge) == 1
    assert 1 <= choose_count(None, "cpu", 5, small) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("reason", "count"), [("", 3), ("torch is built for ROCm", 1)])
def test_a_gpu_is_shared_only_where_that_is_known_to_be_right(monkeypatch, reason, count):
    monkeypatch.setattr("bench.system.accelerators.why_not_shared", lambda: reason)
    assert choose_count(3, "cuda", 5, 1) == count
    assert choose_count(3, "cpu", 5, 1) == 3


def test_processes_are_spread_over_the_gpus(tmp_path, monkeypatch):
    """Each sees one; those that a process of the user's own choice sees are all that there are."""
    monkeypatch.setattr("bench.system.accelerators.may_have_gpu", lambda *_: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert gpus_for("auto") == gpus_for("cuda") == ["3", "5"]
    assert gpus_for("cuda:1") == gpus_for("cpu") == []
    assert choose_count(None, "cuda", 5, 1) == 2
    assert choose_count(None, "cuda:1", 5, 1) == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0", "1", "2"]
    events = []
    ProcessScheduler(2, ["3", "5"]).run(JOBS, Seeing(), lambda _job: None, events.append)
    assert {event.text for event in events} == {"3", "5"}


@pytest.mark.slow
def test_the_numbers_are_those_of_one_process(tmp_path, monkeypatch):
    changes = ["strategies=[scratch,feature_extractor,partial,linear_probe]", "target.image_size=48"]
    study = load("small_similar", changes, "smoke")
    frames = []
    for jobs in (1, 3):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / str(jobs)))
        options = Options(device="cpu", jobs=jobs, threads=1)
        runner = StudyRunner(plan(study), options, Progress(study.metric))
        runner.run()
        evidence = runner.evidence()
        apart = ["mlflow_run_id", *SECONDS, "peak_memory_bytes"]
        frames.append([frame.drop(columns=apart) for frame in (evidence.runs, evidence.trials)])
    for one, three in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(one, three, check_exact=True)
