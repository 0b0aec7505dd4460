"""Studies killed at random moments whose runs are in PostgreSQL, directly or behind an MLflow server."""

import random
from contextlib import contextmanager

import pytest

from bench.study_record.read import EXPERIMENT
from bench.tracking.store import open_store
from tests.faults.test_kills import count_differences, kill_at_random, timed_study
from tests.faults.test_store_away import running_server
from tests.support.postgres import running_postgres

pytestmark = pytest.mark.slow


@contextmanager
def running_store(kind, folder):
    """Yield the address of a store whose tables are made, as those of a server in use are."""
    folder.mkdir()
    with running_postgres() as database:
        open_store(database.uri, "made before", create=True)
        if kind == "PostgreSQL":
            yield database.uri
        else:
            with running_server(folder, database.uri) as server:
                yield server.url


@pytest.mark.parametrize("kind", ["PostgreSQL", "an MLflow server on it"])
def test_killed_while_its_runs_are_on_a_server(bench, tmp_path, kind, tell):
    draw, home = random.Random(kind), tmp_path / "home"
    expected, seconds = timed_study(bench, tmp_path / "undisturbed", "--jobs", "1")
    with running_store(kind, tmp_path / "server") as uri:
        arguments = ("--jobs", "1", "--tracking-uri", uri)
        kills = kill_at_random(bench, home, arguments, [draw.uniform(0.1, 0.9) * seconds for _ in range(4)])
        found = bench.finish(home, *arguments)
        store = open_store(uri, EXPERIMENT.format(study="tiny"))
        ended = store.connection.search("tags.\"bench.status\" = 'done' and tags.purpose = 'final'")
        left = store.connection.search("attributes.status = 'RUNNING'")
    keys = [run.data.tags["bench.run_key"] for run in ended if run.info.status == "FINISHED"]
    missing, changed = count_differences(expected, found)
    repeated = len(keys) - len(set(keys))
    tell(f"{kind}: {kills} kills; runs lost {missing}, repeated {repeated}, differing numbers {changed}")
    assert kills
    assert (missing, repeated, changed) == (0, 0, 0)
    assert left == []
