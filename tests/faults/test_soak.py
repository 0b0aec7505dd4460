"""Very many short runs in one study: nothing grows with their number. It prints what it measured."""

import os
import sqlite3
import time
from contextlib import closing

import psutil
import pytest

from tests.faults.test_kills import ended_runs

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("BENCH_SOAK_RUNS", "600"))  # 2000 for a longer test
STRATEGIES = ("scratch", "full")
JOBS = 4
MOST_SECONDS = 1800  # not measured: what hangs must end
MEMORY = 1.1  # the most that a process may have grown by from its second quarter to its last


def sample(parent, seen):
    """Note resident bytes, open files and threads of each process that has run for a while."""
    for process in parent.children(recursive=True):
        try:
            with process.oneshot():
                now = (process.memory_info().rss, process.num_fds(), process.num_threads())
        except psutil.Error:
            continue
        seen.setdefault(process.pid, []).append(now)


def seconds_per_run(home):
    """Wall seconds for each final run, in the second tenth of them and in the last one."""
    query = (
        "select r.end_time from runs r join tags p on p.run_uuid = r.run_uuid"
        " and p.key = 'purpose' and p.value = 'final' order by r.end_time"
    )
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        ends = [end for (end,) in database.execute(query)]
    tenth = len(ends) // 10
    return [(ends[last] - ends[last - tenth]) / tenth / 1000 for last in (2 * tenth, len(ends) - 1)]


def test_nothing_grows_with_the_number_of_runs(bench, tmp_path, tell):
    seeds = RUNS // len(STRATEGIES) // 2  # a trial and a final run each
    wanted = [word for strategy in STRATEGIES for word in ("--strategy", strategy)]
    wanted += ["--jobs", str(JOBS), "--trials", "1", "--seeds", str(seeds), "--epochs", "1"]
    process = bench.start(tmp_path, *wanted, "--set", "training.batch_size=32")
    parent, seen = psutil.Process(process.pid), {}
    until = time.monotonic() + MOST_SECONDS
    while process.exitcode is None and time.monotonic() < until:
        sample(parent, seen)
        process.join(0.5)
    assert process.exitcode == 0, (tmp_path / "log").read_text()[-3000:]
    keys, running = ended_runs(tmp_path)
    assert (len(keys), running) == (len(set(keys)), 0)
    assert len(keys) == len(STRATEGIES) * seeds * 2
    early, late = seconds_per_run(tmp_path)
    lasting = [samples for samples in seen.values() if len(samples) > max(map(len, seen.values())) / 2]
    workers = sorted(lasting, key=lambda samples: samples[-1][0])[-JOBS:]  # not those that only start others
    growth = []
    for samples in workers:
        quarter = max(1, len(samples) // 4)
        parts = samples[quarter : 2 * quarter], samples[-quarter:]
        least = [[min(column) for column in zip(*part, strict=True)] for part in parts]  # a leak raises these
        growth.append([after / before for before, after in zip(*least, strict=True)])
    memory, files, threads = (max(column) for column in zip(*growth, strict=True))
    tell(
        f"{len(keys)} runs, {JOBS} jobs; seconds per run: {early:.3f} early, {late:.3f} late; late / early: "
        f"seconds {late / early:.2f}, memory {memory:.3f}, open files {files:.3f}, threads {threads:.3f}"
    )
    assert memory < MEMORY
    assert files <= 1
    assert threads <= 1
