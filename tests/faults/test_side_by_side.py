"""Several `bench run` of one study at once, and one that is asked to stop."""

import json
import os
import signal
import time
from functools import partial

import pandas as pd
import pytest

from bench.study_record import freshness
from bench.study_record.read import EXPERIMENT, resolved
from bench.tracking.store import open_store
from tests.faults.test_kills import count_differences, ended_runs
from tests.support.tiny_bench import reports_beside_another

pytestmark = pytest.mark.slow

LONG = ("--strategy", "full", "--epochs", "40", "--trials", "1", "--seeds", "2")  # runs of some seconds


def complaints(log):
    """What was said of errors, without what progress and reports say."""
    return [line for line in log.read_text().splitlines() if "bench: " in line or "Error" in line]


@pytest.mark.parametrize("count", [2, 8])
def test_several_at_once_share_the_work(bench, tmp_path, count):
    expected = bench.finish(tmp_path / "alone", "--jobs", "1")
    home = tmp_path / "shared"
    processes = [bench.start(home, "--jobs", "1") for _ in range(count)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count, complaints(home / "log")
    found = bench.finish(home, "--jobs", "1")
    keys, running = ended_runs(home)
    assert len(keys) == len(set(keys)) == sum(map(len, expected))
    assert running == 0
    assert count_differences(expected, found) == (0, 0)


def published(home):
    """By strategy: what the report says that is among the files of each study's run."""
    store = open_store(f"sqlite:///{home}/mlflow.db", EXPERIMENT.format(study="tiny"), to_read=True)
    said = {}
    for found in store.reader.studies():
        report = json.loads(next(store.reader.read_all([found], "report/summary.json")))
        assert freshness.is_published(found.tags, report["fingerprint"])
        said[resolved(store, found).strategies] = [result["strategy"] for result in report["results"]]
    return said


@pytest.mark.parametrize("homes", [1, 2])
def test_two_variants_with_one_folder_of_reports(bench, tmp_path, homes):
    """Each is published with its own runs, and what is in the folder at the end is all of one of them."""
    output, variants = tmp_path / "reports", ("full", "linear_probe")
    places = [tmp_path / f"home {number % homes}" for number in range(2)]
    short = ("--jobs", "1", "--trials", "1", "--seeds", "2", "--epochs", "1", "--output", output)
    (meeting := tmp_path / "meeting").mkdir()
    processes = [
        bench.start(
            home, *short, "--strategy", variant,
            log=tmp_path / variant, before=partial(reports_beside_another, meeting, variant),
        )
        for home, variant in zip(places, variants, strict=True)
    ]  # fmt: skip
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], [complaints(tmp_path / v) for v in variants]
    said = {key: value for home in set(places) for key, value in published(home).items()}
    assert said == {(variant,): [variant] for variant in variants}
    (shown,) = (result["strategy"] for result in freshness.read(output / "tiny")["results"])
    assert set(pd.read_csv(output / "tiny" / "runs.csv")["strategy"]) == {shown}
    assert shown in (output / "tiny" / "report.md").read_text()
    assert len(list(meeting.iterdir())) == 4
    assert not list(output.glob(".*.lock"))


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory):
    """By the number of processes: each has other threads, and so other last bits."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {jobs: bench.finish(folder / jobs, "--jobs", jobs, *LONG) for jobs in ("1", "2")}


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_its_step_and_goes_on_from_there(bench, undisturbed, tmp_path, jobs, number):
    process = bench.start(tmp_path, "--jobs", jobs, *LONG, BENCH_CHECKPOINT_SECONDS="0.5")
    log, folder = tmp_path / "log", tmp_path / "checkpoints"
    until = time.monotonic() + 120
    while not list(folder.glob("*.pt")):  # now it is in the middle of a run
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)
    saved = set(folder.glob("*.pt"))
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130, log.read_text()
    assert "goes on from here" in log.read_text()
    assert saved <= set(folder.glob("*.pt"))
    assert len(list(folder.glob("*.pt"))) <= int(jobs)
    assert ended_runs(tmp_path) == ([], 0)
    assert count_differences(undisturbed[jobs], bench.finish(tmp_path, "--jobs", jobs, *LONG)) == (0, 0)
