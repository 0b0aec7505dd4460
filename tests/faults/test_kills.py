"""Studies killed at random moments and begun again: nothing is lost, repeated or changed."""

import os
import random
import sqlite3
from contextlib import closing

import pytest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BENCH_KILLS", "52"))  # in all; more for a longer test
SHARE = {"1": 0.85, "2": 0.15}  # of them, by number of processes
LATEST = {"1": 6, "2": 16}  # seconds; a crew of processes needs some five to begin


def ended_runs(home):
    """The key of each run that came to an end by itself; and how many are left RUNNING."""
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
        (left,) = database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
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


@pytest.mark.parametrize("jobs", SHARE)
def test_killed_at_any_moment(bench, tmp_path, jobs, capsys):
    draw = random.Random(f"kills {jobs}")
    expected = bench.finish(tmp_path / "undisturbed", "--jobs", jobs)
    kills = lost = repeated = different = studies = 0
    while kills < KILLS * SHARE[jobs]:
        home = tmp_path / str(studies)
        studies += 1
        while True:
            process = bench.start(home, "--jobs", jobs)
            process.join(draw.uniform(0.5, LATEST[jobs]))
            if process.exitcode is not None:
                assert process.exitcode == 0, (home / "log").read_text()[-3000:]
                break
            process.kill()
            process.join()
            kills += 1
        found = bench.finish(home, "--jobs", jobs)
        keys, running = ended_runs(home)
        assert running == 0
        assert not list((home / "checkpoints").glob("*")), "a checkpoint goes with its run"
        repeated += len(keys) - len(set(keys))
        missing, changed = count_differences(expected, found)
        lost, different = lost + missing, different + changed
    with capsys.disabled():
        print(f"\njobs {jobs}: {kills} kills in {studies} studies; runs lost {lost}, repeated {repeated}, ")
        print(f"  differing numbers {different}")
    assert (lost, repeated, different) == (0, 0, 0)
