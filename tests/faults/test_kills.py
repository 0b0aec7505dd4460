"""Studies killed at random moments and begun again: nothing is lost, repeated or changed."""

import os
import random
import sqlite3
import time
from contextlib import closing

import pytest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BENCH_KILLS", "52"))  # in all; more for a longer test
SHARE = {"1": 0.85, "2": 0.15}  # of them, by number of processes
KILLS_OF_A_STUDY = 4  # then it is completed


def ended_runs(home):
    """The key of each run that came to an end by itself; and how many are left RUNNING.

    Where two commands open an arm at the same moment, one of its two runs is thrown away: it is not left.
    """
    query = (
        "select k.value || p.value || coalesce(t.value, '') from runs r"
        " join tags k on k.run_uuid = r.run_uuid and k.key = 'bench.run_key'"
        " join tags p on p.run_uuid = r.run_uuid and p.key = 'purpose'"
        " left join tags t on t.run_uuid = r.run_uuid and t.key = 'trial'"
        " where r.status in ('FINISHED', 'FAILED')"
    )
    file = (home / "mlflow.db").as_uri()
    with closing(sqlite3.connect(f"{file}?mode=ro", uri=True)) as database:
        keys = [key for (key,) in database.execute(query)]
        (left,) = database.execute(
            "select count(*) from runs where status = 'RUNNING' and lifecycle_stage = 'active'"
        ).fetchone()
    return keys, left


def count_differences(expected, found):
    """How many rows are missing, and how many values differ."""
    lost = sum(len(a) - len(b) for a, b in zip(expected, found, strict=True))
    different = sum(
        int((a.fillna("") != b.fillna("")).to_numpy().sum())
        for a, b in zip(expected, found, strict=True)
        if a.shape == b.shape
    )
    return lost, different


def timed_study(bench, home, *arguments):
    """The tables of a study that nothing disturbs, and the seconds that this machine takes for it."""
    bench.start(home, *arguments, "--dry-run").join()  # what all others are forked from has begun
    began = time.monotonic()
    return bench.finish(home, *arguments), time.monotonic() - began


def kill_at_random(bench, home, arguments, moments):
    """Begin a study and kill it after each of these seconds; return how often it was killed."""
    for killed, moment in enumerate(moments):
        process = bench.start(home, *arguments)
        process.join(moment)
        if process.exitcode is not None:
            assert process.exitcode == 0, (home / "log").read_text()[-3000:]
            return killed
        process.kill()
        process.join()
    return len(moments)


@pytest.mark.parametrize("jobs", SHARE)
def test_killed_at_any_moment(bench, tmp_path, jobs, tell):
    """Each study is killed in any part of its time, as long as this machine takes; then it is completed."""
    draw, arguments = random.Random(f"kills {jobs}"), ("--jobs", jobs)
    expected, seconds = timed_study(bench, tmp_path / "undisturbed", *arguments)
    kills = lost = repeated = different = studies = 0
    while kills < KILLS * SHARE[jobs]:
        home = tmp_path / str(studies)
        studies += 1
        moments = [draw.uniform(0.1, 0.9) * seconds for _ in range(KILLS_OF_A_STUDY)]
        kills += kill_at_random(bench, home, arguments, moments)
        found = bench.finish(home, *arguments)
        keys, running = ended_runs(home)
        assert running == 0
        assert not list((home / "checkpoints").glob("*")), "a checkpoint goes with its run"
        repeated += len(keys) - len(set(keys))
        missing, changed = count_differences(expected, found)
        lost, different = lost + missing, different + changed
    tell(
        f"jobs {jobs}: {kills} kills in {studies} studies; "
        f"runs lost {lost}, repeated {repeated}, differing numbers {different}"
    )
    assert (lost, repeated, different) == (0, 0, 0)
