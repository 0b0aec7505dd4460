"""Jobs shared out among real processes: one that is done makes others possible, one that dies is replaced."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from bench.core.errors import InputError
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.scheduler import (
    Job,
    choose_count,
    in_turn,
    side_by_side,
)
from bench.experiment.study_runner import Options, Runner
from bench.study.loading import load
from bench.tracking.frames import SECONDS


def record(channel, folder):
    """Write down who did what, and where."""

    def do(job):
        channel.note("say", (str(job),))
        with (Path(folder) / "log").open("a") as log:
            log.write(f"{os.getpid()} {os.environ['BENCH_HOME']} {job}\n")
        return job.seeds

    channel.jobs(do)


def die(channel, folder, deaths):
    """Die over the job of seed 2, so many times."""

    def do(job):
        marks = list(Path(folder).glob("death*"))
        if job.seeds == (2,) and len(marks) < deaths:
            (Path(folder) / f"death{len(marks)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job.seeds

    channel.jobs(do)


def refuse(channel):
    def do(job):
        raise InputError("no such thing", str(job), "try another")

    channel.jobs(do)


TUNE = [Job("full"), Job("scratch")]


def seeds_after_tuning(seen):
    def done(job, value):
        seen.append((job, value))
        return [] if job.seeds else [Job(job.strategy, (seed,)) for seed in (1, 2)]

    return done


def test_in_turn_does_what_becomes_possible_first():
    did = []

    def do(job):
        did.append(str(job))
        return job.seeds

    in_turn(TUNE, do, seeds_after_tuning([]))
    assert did == [
        *("full, tuning", "full, seed 1", "full, seed 2"),
        *("scratch, tuning", "scratch, seed 1", "scratch, seed 2"),
    ]


def test_what_is_done_elsewhere_is_asked_for_again_after_the_rest():
    asked = []

    def do(job):
        asked.append(job.strategy)
        return None if asked == ["full"] else ()

    in_turn(TUNE, do, lambda _job, _outcome: [])
    assert asked == ["full", "scratch", "full"]


def test_side_by_side_does_every_job_once_in_the_environment_of_now(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    seen, said = [], []
    side_by_side(
        TUNE, 2, record, (str(tmp_path),), seeds_after_tuning(seen), lambda *message: said.append(message)
    )
    expected = sorted(str(Job(s, seeds)) for s in ("full", "scratch") for seeds in ((), (1,), (2,)))
    lines = [line.split(" ", 2) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(job for _, _, job in lines) == expected
    assert sorted(str(job) for job, _ in seen) == expected
    assert sorted(said) == [("say", (job,)) for job in expected]
    assert {home for _, home, _ in lines} == {str(tmp_path)}
    assert len({pid for pid, _, _ in lines}) <= 2
    assert not {int(pid) for pid, _, _ in lines} & {os.getpid()}


def test_a_process_that_dies_is_replaced_and_its_job_done(tmp_path):
    seen, said = [], []
    side_by_side(
        TUNE,
        2,
        die,
        (str(tmp_path), 2),
        seeds_after_tuning(seen),
        lambda *message: said.append(message[1][0]),
    )
    assert len(seen) == len({job for job, _ in seen}) == 6
    assert len(said) == 2
    assert said[0].startswith("bench: a process died (SIGKILL); its job is taken up again: ")


def test_a_job_that_kills_again_and_again_is_given_up(tmp_path):
    with pytest.raises(InputError, match="seed 2: 3 processes died over one job, the last by SIGKILL"):
        side_by_side(
            [Job("full", (2,))], 2, die, (str(tmp_path), 99), seeds_after_tuning([]), lambda *_: None
        )


def test_an_input_error_arrives_as_it_was_raised():
    with pytest.raises(InputError) as caught:
        side_by_side(TUNE, 2, refuse, (), seeds_after_tuning([]), lambda *_: None)
    assert str(caught.value) in {f"{job}: no such thing; try another" for job in TUNE}


def test_processes_are_as_many_as_wished_or_as_cores_and_memory_allow():
    small, huge = 32 * 64**2, 10**12
    assert choose_count(8, "cpu", 5, huge) == 5
    assert choose_count(1, "cpu", 5, small) == 1
    assert choose_count(None, "cuda:1", 5, small) == 1
    assert choose_count(None, "cpu", 5, huge) == 1
    assert 1 <= choose_count(None, "cpu", 5, small) <= len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_the_numbers_are_those_of_one_process(tmp_path, monkeypatch):
    changes = ["strategies=[scratch,feature_extractor,partial,linear_probe]", "target.image_size=48"]
    study = load("small_similar", changes, "smoke")
    frames = []
    for jobs in (1, 3):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / str(jobs)))
        options = Options(device="cpu", jobs=jobs, threads=1)
        runner = Runner(plan(study), options, Progress(study.metric))
        runner.run()
        evidence = runner.evidence()
        apart = ["mlflow_run_id", *SECONDS, "peak_memory_bytes"]
        frames.append([frame.drop(columns=apart) for frame in (evidence.runs, evidence.trials)])
    for one, three in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(one, three, check_exact=True)
