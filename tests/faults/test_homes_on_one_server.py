"""Several homes run one study on one store at the same time, as colleagues do who share a server."""

import os

import pytest

from bench.study_record.read import EXPERIMENT
from bench.tracking.store import open_store
from tests.faults.test_kills import count_differences
from tests.faults.test_store_away import running_server
from tests.support.postgres import running_postgres
from tests.support.tiny_bench import one_thread

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("BENCH_SERVER_ROUNDS", "1"))  # 10 for a longer test: two, three and four homes
KINDS = ("an MLflow server", "a fresh PostgreSQL")
CASES = [(kind, 2 + (turn + number) % 3) for turn in range(ROUNDS) for number, kind in enumerate(KINDS)]
SHORT = ("--jobs", "1", "--strategy", "full,linear_probe", "--trials", "2", "--seeds", "2", "--epochs", "2")


@pytest.fixture(scope="module")
def expected(bench, tmp_path_factory):
    return bench.finish(tmp_path_factory.mktemp("alone"), *SHORT, before=one_thread)


def run_side_by_side(bench, folder, homes, uri):
    """Run the study from several homes at once; return the folders of the homes."""
    places = [folder / f"home {number}" for number in range(homes)]
    processes = [bench.start(home, *SHORT, "--tracking-uri", uri, before=one_thread) for home in places]
    for process in processes:
        process.join(300)
    logs = [(home / "log").read_text() for home in places]
    assert [process.exitcode for process in processes] == [0] * homes, "\n".join(log[-2000:] for log in logs)
    assert not [log for log in logs if "Traceback" in log]
    assert not list(folder.rglob("refused.jsonl")), "\n".join(log[-2000:] for log in logs)
    return places


@pytest.mark.parametrize(("kind", "homes"), CASES)
def test_several_homes_at_once(bench, expected, tmp_path, homes, kind):
    (tmp_path / "server").mkdir()
    with running_postgres() as database:
        if kind == "a fresh PostgreSQL":
            check_homes(bench, expected, tmp_path, homes, database.uri)
        else:
            with running_server(tmp_path / "server", database.uri) as server:
                check_homes(bench, expected, tmp_path, homes, server.url)


def check_homes(bench, expected, folder, homes, uri):
    for home in run_side_by_side(bench, folder, homes, uri):
        found = bench.finish(home, *SHORT, "--tracking-uri", uri, before=one_thread)
        assert count_differences(expected, found) == (0, 0)
    store = open_store(uri, EXPERIMENT.format(study="tiny"))
    assert not store.connection.search("attributes.status = 'RUNNING'")
