"""Several `bench run` of one study at once, and one that is asked to stop."""

import os
import signal
import time

import pytest
from test_kills import count_differences, ended_runs

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_its_step_and_goes_on_from_there(bench, tmp_path, jobs, number):
    settings = {"BENCH_CHECKPOINT_SECONDS": "3600"}
    longer = ("--jobs", jobs, "--strategy", "full", "--epochs", "60")
    process = bench.start(tmp_path, *longer, **settings)
    log = tmp_path / "log"
    until = time.monotonic() + 120
    while not (log.exists() and "trial 1/5" in log.read_text()):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
    time.sleep(0.5)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130, log.read_text()
    assert "goes on from here" in log.read_text()
    assert len(list((tmp_path / "checkpoints").glob("*.pt"))) == 1
    assert ended_runs(tmp_path)[1] == 0
