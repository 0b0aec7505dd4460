"""The tracking server goes away while a study runs: nothing is lost, and all of it arrives once."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from bench.core.errors import StoreAwayError
from bench.core.runs import Purpose
from bench.study_record.read import EXPERIMENT
from bench.tracking.operations import Close, Upload, Write
from bench.tracking.outbox import Outbox
from bench.tracking.store import open_store, open_study_store
from tests.faults.test_kills import count_differences
from tests.support.postgres import running_postgres
from tests.support.tracking_contract import (
    ARMS,
    done,
    free_port,
    open_levels,
    spec,
)

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server that can be stopped, frozen and started again."""

    def __init__(self, folder, database=None):
        self.folder, self.port = folder, free_port()
        self.database = database or f"sqlite:///{folder}/mlflow.db"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", self.database]
        store += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, *store],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.3)

    def send(self, number):
        os.killpg(self.process.pid, number)

    def stop(self):
        if self.process:
            self.send(signal.SIGKILL)
            self.process.wait()


@contextmanager
def running_server(folder, database=None):
    server = Server(folder, database)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    with running_server(folder) as server:
        yield server


def wait_for(log, text):
    until = time.monotonic() + 180
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


STRATEGY = ("--jobs", "1", "--strategy", "full", "--epochs", "40")


@pytest.fixture(scope="module")
def expected(bench, tmp_path_factory):
    return bench.finish(tmp_path_factory.mktemp("undisturbed"), *STRATEGY)


@pytest.mark.parametrize("back", ["while it runs", "after it has ended", "after it was killed"])
def test_a_server_that_stops_and_comes_back(bench, server, expected, tmp_path, back):
    home, log = tmp_path / "home", tmp_path / "home" / "log"
    uri = ("--tracking-uri", server.url)
    process = bench.start(home, *STRATEGY, *uri)
    wait_for(log, "full: seed 1, trial 2/3")
    server.stop()
    wait_for(log, "what is logged waits in")
    if back == "while it runs":
        server.start()
        process.join(240)
        assert process.exitcode == 0, log.read_text()[-3000:]
        assert "is back" in log.read_text()
    elif back == "after it has ended":
        process.join(240)
        assert process.exitcode == 2, log.read_text()[-3000:]
        assert "delivers them once it is back" in log.read_text()
        server.start()
    else:
        wait_for(log, "full: seed 1, trial 3/3")
        process.kill()
        process.join()
        server.start()
    found = bench.finish(home, *STRATEGY, *uri)
    assert not list((home / "outbox").glob("*/operations.jsonl"))
    assert count_differences(expected, found) == (0, 0)


def test_processes_that_begin_while_the_server_is_away(bench, server, tmp_path):
    home, log = tmp_path / "home", tmp_path / "home" / "log"
    crew = ("--jobs", "2", *STRATEGY[2:])
    expected = bench.finish(tmp_path / "undisturbed", *crew)
    crew += ("--tracking-uri", server.url)
    process = bench.start(home, *crew)
    wait_for(log, "loading torch")  # the study is open; its processes take seconds to begin
    server.stop()
    wait_for(log, "what is logged waits in")
    wait_for(log, "full: seed 1, trial 1/3")
    server.start()
    process.join(240)
    assert process.exitcode == 0, log.read_text()[-3000:]
    found = bench.finish(home, *crew)
    assert not list((home / "outbox").glob("*/operations.jsonl"))
    assert count_differences(expected, found) == (0, 0)


@pytest.fixture(params=["a server that hangs", "a server that answers with errors", "PostgreSQL itself"])
def failing(request, tmp_path):
    """The address of a store, and what makes it fail and what mends it."""
    folder = tmp_path / "server"
    folder.mkdir()
    with ExitStack() as stack:
        if request.param == "a server that hangs":
            server = stack.enter_context(running_server(folder))
            yield server.url, lambda: server.send(signal.SIGSTOP), lambda: server.send(signal.SIGCONT)
            return
        database = stack.enter_context(running_postgres())
        url = database.uri
        if request.param == "a server that answers with errors":
            url = stack.enter_context(running_server(folder, database.uri)).url
        yield url, database.stop, database.start


def test_a_store_that_fails_and_is_mended(bench, failing, expected, tmp_path):
    uri, fail, mend = failing
    home, log = tmp_path / "home", tmp_path / "home" / "log"
    where, impatient = ("--tracking-uri", uri), {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    process = bench.start(home, *STRATEGY, *where, **impatient)
    wait_for(log, "full: seed 1, trial 2/3")
    fail()
    wait_for(log, "what is logged waits in")
    mend()
    process.join(240)
    assert process.exitcode == 0, log.read_text()[-3000:]
    assert "is back" in log.read_text()
    assert "Traceback" not in log.read_text()
    found = bench.finish(home, *STRATEGY, *where)
    assert not list((home / "outbox").glob("*/operations.jsonl"))
    assert count_differences(expected, found) == (0, 0)
    store = open_store(uri, EXPERIMENT.format(study="tiny"))
    assert not store.connection.search("attributes.status = 'RUNNING'")


def test_operations_arrive_in_order_and_once(tmp_path):
    outbox, arrived = Outbox(tmp_path), []
    file = tmp_path / "file"
    file.write_text("kept")
    for number in range(5):
        outbox.add(Close("run", "FINISHED", number))
    outbox.add(Upload("run", "weights", str(file)))
    file.write_text("changed")

    def apply(operation):
        if isinstance(operation, Upload):
            arrived.append(Path(operation.file).read_text())
        elif len(arrived) == 3 and operation.milliseconds == 3:
            arrived.append("away")
            raise ConnectionError
        else:
            arrived.append(operation.milliseconds)

    with pytest.raises(ConnectionError):
        outbox.deliver(apply)
    with outbox._entries.open("ab") as entries:
        entries.write(b'{"version": 1, "operation": "Cl')  # a process that died
    outbox.add(Close("run", "FINISHED", 5))
    assert Outbox(tmp_path).deliver(apply) == 4
    assert arrived == [0, 1, 2, "away", 3, 4, "kept", 5]
    assert outbox.is_empty


@pytest.fixture
def locked_database(tmp_path, monkeypatch):
    """The address of a store, and a function that keeps others from writing to it until its end."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    file = tmp_path / "mlflow.db"

    @contextmanager
    def lock():
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("begin immediate")
            yield
            database.execute("rollback")

    return f"sqlite:///{file}", lock


def test_a_run_whose_end_waits_to_be_delivered_is_no_leftover(locked_database):
    uri, lock = locked_database
    before = open_study_store(uri, "toy")
    study, arm = open_levels(before)
    live = before.start(spec(seed=1), arm, "seed 1", {}, {})
    before.connection.client.set_tag(live.run_id, "bench.process", f"{socket.gethostname()}:1:1")  # has ended
    with lock():
        live.finish(done(spec(seed=1)))
        after = open_study_store(uri, "toy")
        assert after.has_ended(spec(seed=1).key, 0)
        assert after.fail_leftovers(study) == 1
        assert not open_study_store(uri, "toy")._outbox.is_empty
    after.settle()
    assert after._outbox.is_empty
    assert after.connection.client.get_run(live.run_id).info.status == "FINISHED"
    assert list(after.find([spec(seed=1).key]))


def test_a_trial_that_waits_to_be_delivered_is_not_done_again(locked_database):
    uri, lock = locked_database
    before, trial = open_study_store(uri, "toy"), spec(purpose=Purpose.TRIAL)
    _, arm = open_levels(before)
    live = before.start(trial, arm, "trial 1", {}, {"trial": 0})
    with lock():
        live.finish(done(trial))
        after = open_study_store(uri, "toy")
        with pytest.raises(StoreAwayError, match="wait in"):
            after.trials(trial.arm.key, ())
        assert after.trials(ARMS["scratch"].key, ()) == after.trials(trial.arm.key, [trial.key]) == []
        assert after.trials(trial.arm.key, (), trial.seed + 1) == [], "those of another seed may wait"
    (delivered,) = after.trials(trial.arm.key, ())
    assert delivered.metrics["val/accuracy"] == done(trial).metrics["val/accuracy"]


def test_an_arm_that_was_opened_while_the_store_was_away_is_known_to_all(locked_database):
    """One process opens it, delivers that and opens it again; another one ends it by what it was told."""
    uri, lock = locked_database
    first, crew = open_study_store(uri, "toy"), open_study_store(uri, "toy")
    study, before = open_levels(first)
    first.writer.close(before, "FINISHED")
    with lock():
        arm = crew.open_arm(study, ARMS["full"], {}, {})
    assert arm.startswith("provisional-")
    crew.settle()
    assert crew.open_arm(study, ARMS["full"], {"size": "small"}, {}) == before
    first.writer.close(arm, "FINISHED")
    first.settle()
    assert first.connection.client.get_run(before).info.status == "FINISHED"


@pytest.mark.parametrize("kind", ["http", "postgresql"])
def test_a_store_that_is_away_when_a_process_begins(kind):
    store = open_study_store(f"{kind}://u@127.0.0.1:{free_port()}/x", "toy", experiment_id="1")
    assert store.writer.create_run("trial 1", {}).startswith("provisional-")


def test_a_file_that_comes_while_others_are_delivered_is_kept(locked_database, tmp_path):
    uri, _ = locked_database
    store, other = open_study_store(uri, "toy"), open_study_store(uri, "toy")
    run_id = store.writer.create_run("trial 1", {})
    weights = tmp_path / "weights"
    weights.write_text("w")
    store._outbox.add(Write(run_id, [], {}, {"waits": "yes"}))
    deliverer = threading.Thread(target=store.writer.try_again)

    class KeptWhileOthersAreDelivered(Upload):
        def with_files_in(self, folder):
            kept = super().with_files_in(folder)
            deliverer.start()
            deliverer.join(2)
            return Upload(kept.run_id, kept.name, kept.file)

    other._outbox.add(KeptWhileOthersAreDelivered(run_id, "weights", str(weights)))
    deliverer.join()
    other.settle()
    assert Path(store.connection.client.download_artifacts(run_id, "weights")).read_text() == "w"


def test_a_file_that_is_gone_holds_up_nothing(locked_database, tmp_path, caplog):
    uri, _ = locked_database
    store = open_study_store(uri, "toy")
    run_id = store.writer.create_run("trial 1", {})
    for name in ("gone", "there"):
        (tmp_path / name).write_text(name)
        store._outbox.add(Upload(run_id, name, str(tmp_path / name)))
    gone, _ = store._outbox.waiting()
    Path(gone.file).unlink()
    store._outbox.add(Close(run_id, "FINISHED", 1))
    store.settle()
    assert [file.path for file in store.connection.client.list_artifacts(run_id)] == ["there"]
    assert "is refused" in caplog.text
    assert store.connection.client.get_run(run_id).info.status == "FINISHED"


def test_a_run_that_waits_without_its_end_is_done_again(locked_database):
    uri, lock = locked_database
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    with lock():
        live = store.start(spec(seed=1), arm, "seed 1", {}, {})
        store.writer.write(live.run_id, [], {}, {"bench.status": "done"})
        live.abandon()
        assert not store.has_ended(spec(seed=1).key, 0)
    store.settle()
    assert not store.has_ended(spec(seed=1).key, 0)
