"""The same contract on a real MLflow server and a real PostgreSQL, both started here and stopped after."""

import http.server
import multiprocessing
import os
import signal
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from bench.core.errors import InputError
from bench.tracking import store_uri
from bench.tracking.store import open_store, open_study_store
from bench.tracking.ui import ui_command
from tests.support.postgres import running_postgres
from tests.support.tracking_contract import (
    StoreContract,
    done,
    free_port,
    new_store,
    open_levels,
    serving,
    spec,
)


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(f"sqlite:///{folder}/mlflow.db", folder) as (_, url):
        yield url


class TestServer(StoreContract):
    @pytest.fixture
    def uri(self, server_uri):
        return server_uri

    def test_the_page_of_the_experiment_is_served(self, uri):
        url = new_store(uri).connection.place
        assert url.startswith(f"{uri}/#/experiments/")
        with requests.Session() as session:  # tries again, as MLflow's client does and a person would
            session.mount("http://", HTTPAdapter(max_retries=Retry(total=6, backoff_factor=0.5)))
            assert b"<title>MLflow" in session.get(url, timeout=30).content

    def test_several_begin_one_run_at_the_same_moment(self, uri):
        """As two homes do: no lock orders them, and all take the same one."""
        stores = [open_store(uri, "bench/at once", create=True) for _ in range(6)]
        with ThreadPoolExecutor(len(stores)) as pool:
            for attempt in range(3):
                opened = pool.map(
                    lambda store, n=attempt: store.open_study("at once", f"key {n}", {}, {}), stores
                )
                assert len(set(opened)) == 1
        studies = stores[0].connection.search("tags.purpose = 'study'")
        assert len(studies) == 3

    def test_its_port_is_busy_for_another(self, uri, tmp_path):
        with pytest.raises(InputError, match=r"--port: port .* can't be used .*choose another"):
            ui_command(f"sqlite:///{tmp_path}/a.db", "127.0.0.1", int(uri.rpartition(":")[2]))


def test_the_store_is_no_argument_and_no_proxy_is_asked(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(f"sqlite:///{tmp_path}/store.db", tmp_path) as (process, _):
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        assert not [word for one in started for word in one.cmdline() if "store.db" in word]
    assert (tmp_path / "store.db").exists()


@pytest.fixture(scope="module")
def postgres_uri():
    with running_postgres() as server:
        yield server.uri


class TestPostgres(StoreContract):
    @pytest.fixture
    def uri(self, postgres_uri, tmp_path, monkeypatch):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
        return postgres_uri

    def test_artifacts_are_in_bench_home(self, uri, tmp_path):
        store = new_store(uri)
        (tmp_path / "question").write_text("Which?")
        store.writer.upload(open_levels(store)[0], "question.txt", tmp_path / "question")
        assert list((tmp_path / "home" / "artifacts").glob("toy-*/*/artifacts/question.txt"))


@pytest.mark.parametrize("scheme", ["http://127.0.0.1:{}", "postgresql+psycopg2://u:secret@127.0.0.1:{}/x"])
def test_a_server_that_is_gone_is_named_in_one_line(scheme, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    if scheme.startswith("postgresql"):
        pytest.importorskip("psycopg2", reason="the PostgreSQL driver is not installed")
    uri = scheme.format(free_port())
    with pytest.raises(InputError) as caught:
        open_store(uri, "toy", create=True)
    assert store_uri.shown(uri) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_database_driver_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(InputError, match="driver psycopg2 is not installed; pip install psycopg2-binary"):
        open_store("postgresql+psycopg2://u@127.0.0.1/x", "toy", create=True)


def test_a_web_server_that_is_not_mlflow_is_named(tmp_path):
    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match=uri):
            open_store(uri, "toy", create=True)
        server.shutdown()


@pytest.mark.slow
def test_a_server_that_goes_away_leaves_nothing_behind(tmp_path):
    with serving(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) as (process, url):
        store = new_store(url)
        _, arm = open_levels(store)
        live = store.start(spec(), arm, "seed 0", {}, {})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with pytest.raises(InputError, match=f"{url}.*is the server running"):
            live.finish(done(spec()))
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "--port: 70000 is not a port"),
        ("no-such-host.invalid", 5000, "--host: 'no-such-host.invalid' is no address"),
        ("192.0.2.1", 5000, "can't be used"),
    ],
)
def test_where_the_ui_can_not_be_is_said(host, port, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ui_command(f"sqlite:///{tmp_path}/a.db", host, port)


def test_the_ui_of_a_server_is_its_own():
    with pytest.raises(InputError, match="shows its own UI"):
        ui_command("http://127.0.0.1:5000", "127.0.0.1", 5000)


def begin_from_a_home_of_its_own(uri, home, barrier, answers):
    os.environ["BENCH_HOME"] = home
    barrier.wait()
    answer = "failed"
    try:
        store = open_study_store(uri, "toy")
        levels = open_levels(store)
        for _ in range(5):
            store.writer.log_dataset(levels[0], "photographs", "ab" * 32, "here")
        answer = (store.connection.experiment_id, *levels)
    finally:
        answers.put(answer)


@pytest.mark.slow
def test_several_homes_begin_a_study_on_a_fresh_server_at_once(tmp_path):
    """Each takes the same experiment and the same runs, and none of them fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.tracking.store", "mlflow.store.tracking.sqlalchemy_store"])
    barrier, answers = context.Barrier(3), context.Queue()
    with running_postgres() as server:
        arguments = [(server.uri, str(tmp_path / str(home)), barrier, answers) for home in range(3)]
        processes = [context.Process(target=begin_from_a_home_of_its_own, args=given) for given in arguments]
        for process in processes:
            process.start()
        found = [answers.get(timeout=200) for _ in processes]
        for process in processes:
            process.join()
        store = open_store(server.uri, "toy")
        active = {run.info.run_id for run in store.connection.search("")}
    assert len({answer[0] for answer in found}) == 1
    assert "failed" not in found
    assert len(active) == 2, "one study, one arm"
    assert {run_id for answer in found for run_id in answer[1:]} == active
