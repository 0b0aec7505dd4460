"""Several `bench run` of one study at once, and one that is asked to stop."""

import os
import signal
import time

import pytest

from tests.faults.test_kills import count_differences, ended_runs

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
    (saved,) = folder.glob("*.pt")
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130, log.read_text()
    assert "goes on from here" in log.read_text()
    assert list(folder.glob("*.pt")) == [saved]
    assert ended_runs(tmp_path) == ([], 0)
    assert count_differences(undisturbed[jobs], bench.finish(tmp_path, "--jobs", jobs, *LONG)) == (0, 0)
