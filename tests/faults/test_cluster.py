"""The same study on a Ray cluster: the same numbers, and nothing lost or repeated whatever is killed."""

import os
import random
import signal
import time
from collections import Counter

import pytest

from bench.study_record.read import EXPERIMENT
from bench.tracking.store import open_store
from tests.faults.test_kills import count_differences
from tests.faults.test_store_away import running_server, wait_for
from tests.support.postgres import running_postgres
from tests.support.ray_nodes import running_nodes
from tests.support.tiny_bench import one_thread

pytest.importorskip("ray", reason="Ray is not installed: no cluster is tried")
pytestmark = pytest.mark.slow

VICTIMS = ("worker", "node", "driver", "head", "server", "database")
ROUNDS = int(os.environ.get("BENCH_CLUSTER_ROUNDS", "1"))  # 10 for a longer test
SHORT = ("--trials", "2", "--seeds", "2", "--epochs", "20")


@pytest.fixture(scope="module")
def expected(bench, tmp_path_factory):
    return bench.finish(tmp_path_factory.mktemp("alone"), *SHORT, "--jobs", "1", before=one_thread)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    with running_postgres() as database, running_server(tmp_path / "server", database.uri) as server:
        server.beneath = database
        yield server


@pytest.fixture
def nodes(tmp_path):
    (tmp_path / "nodes").mkdir()
    with running_nodes(tmp_path / "nodes", "second") as nodes:
        yield nodes


def on(nodes, server):
    return (*SHORT, "--cluster", nodes.address, "--tracking-uri", server.url)


def check_store(server):
    """Nothing runs any more, and no run was done twice."""
    store = open_store(server.url, EXPERIMENT.format(study="tiny"))
    assert not store.connection.search("attributes.status = 'RUNNING'")
    ended = store.connection.search("attributes.status = 'FINISHED'")
    trained = [run for run in ended if run.data.tags.get("purpose") in {"trial", "final"}]
    keys = Counter(
        (run.data.tags["bench.run_key"], run.data.tags.get("trial"), run.data.tags["purpose"])
        for run in trained
    )
    assert {key: count for key, count in keys.items() if count > 1} == {}


def test_numbers_are_those_of_one_process_here_and_there(bench, expected, server, nodes, tmp_path):
    home = tmp_path / "driver"
    assert count_differences(expected, bench.finish(home, *on(nodes, server))) == (0, 0)
    check_store(server)
    assert (nodes.folder / "second" / "cache").exists() or (nodes.folder / "head").exists()
    again = bench.start(tmp_path / "elsewhere", *SHORT, "--tracking-uri", server.url)
    again.join(120)
    assert again.exitcode == 0
    assert "seeds found done" in (tmp_path / "elsewhere" / "log").read_text()


def test_two_drivers_at_once_repeat_nothing(bench, expected, server, nodes, tmp_path):
    homes = [tmp_path / "one", tmp_path / "two"]
    drivers = [bench.start(home, *on(nodes, server)) for home in homes]
    for driver in drivers:
        driver.join(300)
    logs = [(home / "log").read_text() for home in homes]
    assert [driver.exitcode for driver in drivers] == [0, 0], "\n".join(logs)
    assert sum("waiting for another command that runs this study" in log for log in logs) == 1
    for home in homes:
        found = bench.finish(home, *on(nodes, server))
        assert count_differences(expected, found) == (0, 0)
    check_store(server)


@pytest.mark.parametrize("case", [f"{victim} {turn}" for turn in range(ROUNDS) for victim in VICTIMS])
def test_what_is_killed_costs_time_and_nothing_else(bench, expected, server, nodes, tmp_path, case):
    victim, home, log = case.split()[0], tmp_path / "driver", tmp_path / "driver" / "log"
    driver = bench.start(home, *on(nodes, server))
    wait_for(log, "trial 1/2")
    time.sleep(random.Random(case).uniform(0, 3))
    if victim == "worker":
        kill_a_worker(nodes)
    elif victim == "node":
        nodes.kill("second")
        nodes.start("second")
    elif victim == "driver":
        driver.kill()
    elif victim == "head":
        nodes.kill("head")
    else:
        away = server if victim == "server" else server.beneath
        away.stop()
        time.sleep(2)
        away.start()
    driver.join(300)
    if victim in {"driver", "head"}:
        assert driver.exitcode != 0
        if victim == "head":
            nodes.kill("second")
            nodes.start("head")
            nodes.wait(1)
            nodes.start("second")
            nodes.wait(2)
    else:
        assert driver.exitcode == 0, log.read_text()[-3000:]
    found = bench.finish(home, *on(nodes, server))
    assert count_differences(expected, found) == (0, 0)
    check_store(server)


def kill_a_worker(nodes):
    until = time.monotonic() + 60
    while not (workers := [pid for name in ("head", "second") for pid in nodes.workers(name)]):
        assert time.monotonic() < until, "no job is under way"
        time.sleep(0.1)
    os.kill(workers[0], signal.SIGKILL)


def test_ctrl_c_saves_what_is_under_way(bench, expected, server, nodes, tmp_path):
    home, log = tmp_path / "driver", tmp_path / "driver" / "log"
    driver = bench.start(home, *on(nodes, server))
    wait_for(log, "trial 1/2")
    os.kill(driver.pid, signal.SIGINT)
    driver.join(120)
    assert driver.exitcode == 130, log.read_text()[-3000:]
    assert "Traceback" not in log.read_text()
    found = bench.finish(home, *on(nodes, server))
    assert count_differences(expected, found) == (0, 0)
    check_store(server)
