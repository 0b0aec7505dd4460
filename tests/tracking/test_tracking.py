"""The store on SQLite, the pure parts around it, and the environment."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.runs import Status
from bench.system import processes, provenance
from bench.tracking import frames, store_uri
from bench.tracking.frames import FoundRun
from bench.tracking.live_run import LiveRun
from bench.tracking.store import open_store
from bench.tracking.system_metrics import system_metrics
from bench.tracking.writer import legal_name
from tests.support.tracking_contract import (
    SCENARIO,
    StoreContract,
    done,
    new_store,
    open_levels,
    record,
    spec,
)


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


class TestSqlite(StoreContract):
    @pytest.fixture
    def uri(self, sqlite_uri):
        return sqlite_uri


def open_at_once(uri, barrier, answers):
    barrier.wait()
    answer = "failed"
    try:
        answer = open_store(uri, "toy", create=True).connection.experiment_id
    finally:
        answers.put(answer)


def test_a_fresh_database_may_be_opened_by_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.tracking.store", "mlflow.store.tracking.sqlalchemy_store"])
    barrier, answers = context.Barrier(6), context.Queue()
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    processes = [context.Process(target=open_at_once, args=(uri, barrier, answers)) for _ in range(6)]
    for process in processes:
        process.start()
    assert {answers.get(timeout=100) for _ in processes} == {"1"}
    for process in processes:
        process.join()


def test_default_store_is_in_bench_home_with_a_write_ahead_log(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(None, "toy", create=True)
    study, _ = open_levels(store)
    (tmp_path / "question").write_text("Which?")
    store.writer.upload(study, "question.txt", tmp_path / "question")
    assert store.connection.uri == f"sqlite:///{tmp_path}/home/mlflow.db"
    assert store.connection.place == f"{store.connection.uri} (browse: bench ui)"
    with sqlite3.connect(tmp_path / "home" / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert (tmp_path / "home" / "artifacts" / "toy" / study / "artifacts" / "question.txt").is_file()


def test_the_variable_is_honoured_and_the_option_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    assert store_uri.resolve_uri() == "http://127.0.0.1:5000"
    monkeypatch.chdir(tmp_path)
    assert store_uri.resolve_uri("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "mlruns.*not the address.*sqlite:///mlflow.db"),
        ("htps://host:5000", "did you mean 'https'"),
        ("file:///tmp/mlruns", "not the address"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://", "names no server"),
        ("ftp://me:secret@host/x", r"ftp://me:\*\*\*@host/x"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(uri, message):
    with pytest.raises(InputError, match=message) as caught:
        open_store(uri, "toy", create=True)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is a shopping list, not a database\n" * 100)
    with pytest.raises(InputError, match=r"mlflow.db.*not a database"):
        open_store(f"sqlite:///{tmp_path}/mlflow.db", "toy", create=True)


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/mlflow.db.*can't be opened"):
        open_store(f"sqlite:///{tmp_path}/file/mlflow.db", "toy", create=True)


def test_find_reads_every_page(sqlite_uri, monkeypatch):
    monkeypatch.setattr("bench.tracking.connection.PAGE", 2)
    store = new_store(sqlite_uri)
    _, arm = open_levels(store)
    for seed in range(5):
        record(store, arm, spec(seed=seed))
    assert len(store.find([spec(seed=s).key for s in range(5)])) == 5


def test_the_newest_of_several_results_counts(sqlite_uri):
    store = new_store(sqlite_uri)
    _, arm = open_levels(store)
    for accuracy in (0.5, 0.8, 0.6):
        run_id = record(store, arm, spec(), done(spec(), accuracy))
    assert store.find([spec().key])[spec().key].run_id == run_id
    assert list(store.reader.runs_frame([spec().key]).val_accuracy) == [0.6]


def test_system_metrics_of_a_short_study_are_kept(sqlite_uri):
    store = new_store(sqlite_uri)
    study, _ = open_levels(store)
    with system_metrics(store.connection, study):
        pass
    assert "system/system_memory_usage_megabytes" in store.connection.client.get_run(study).data.metrics


def test_system_metrics_never_fail_the_study(sqlite_uri, monkeypatch):
    store = new_store(sqlite_uri)
    reached = []
    with system_metrics(store.connection, "no-such-run"):
        reached.append("unknown run")
    for module in [m for m in sys.modules if m.startswith("mlflow.system_metrics")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with system_metrics(store.connection, "no-such-run"):
        reached.append("without psutil")
    with pytest.raises(ZeroDivisionError), system_metrics(store.connection, "no-such-run"):
        raise ZeroDivisionError
    assert reached == ["unknown run", "without psutil"]


class Recorder:
    """A store that can be away."""

    def __init__(self):
        self.away, self.points, self.params, self.tags, self.closed = False, [], {}, {}, ""

    def write(self, _run_id, points, params, tags):
        if self.away:
            raise InputError("gone")
        self.points += points
        self.params |= params
        self.tags |= tags

    def upload(self, _run_id, _name, _file):
        assert not self.closed

    def close(self, _run_id, status):
        self.closed = status


def test_a_store_that_is_away_for_a_while_loses_nothing(monkeypatch):
    monkeypatch.setattr("bench.tracking.live_run.FLUSH_SECONDS", 0.0)
    recorder = Recorder()
    live = LiveRun(recorder, lambda: "r", {"a": 1})
    for step in range(4):
        recorder.away = step in {1, 2}
        live.log_evaluation(step, {"val/accuracy": step / 10})
    assert [(p.name, p.step) for p in recorder.points] == [("curve/val/accuracy", e) for e in range(4)]
    live.finish(done(spec()))
    assert recorder.closed == "FINISHED"
    assert recorder.tags["bench.status"] == "done"


def test_values_are_written_together(monkeypatch):
    monkeypatch.setattr("bench.tracking.live_run.FLUSH_SECONDS", 3600.0)
    recorder = Recorder()
    live = LiveRun(recorder, lambda: "r", {"a": 1})
    live.log_evaluation(0, {"val/accuracy": 0.1, "train/loss": float("nan")})
    assert recorder.points == []
    live.finish(done(spec()))
    assert recorder.params == {"a": 1}
    assert recorder.tags["bench.not_finite"] == "curve/train/loss at 0: nan"


@given(st.text(max_size=400))
def test_every_name_becomes_legal(text):
    from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

    _validate_metric_name(legal_name(text))
    _validate_param(legal_name(text), "1")
    _validate_tag(legal_name(text), "1")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Status)), max_size=12))
def test_one_run_a_key_done_first_then_newest(runs):
    found = [FoundRun(str(i), key, status, {}, {}) for i, (key, status) in enumerate(runs)]
    best = frames.by_key(found, "cab")
    assert list(best) == [key for key in "cab" if key in {k for k, _ in runs}]
    for key, run in best.items():
        same = [r for r in found if r.key == key]
        finished = [r for r in same if r.status is Status.DONE]
        assert run is (finished or same)[0]


@given(st.text(alphabet="abc0:/@.-?&=", max_size=20), st.sampled_from(["://", ":/"]))
def test_a_password_is_never_shown(password, colon):
    text = f"postgresql{colon}user:{password}S3CRET{password}@host:5432/db?x=1"
    assert "S3CRET" not in store_uri.shown(text)
    assert store_uri.shown(text).startswith(f"postgresql{colon}user:***@")
    assert store_uri.shown(text).endswith("@host:5432/db?x=***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql://host/db?user=me&password=S3C/R@T&sslmode=require",
            "postgresql://host/db?user=***&password=***&sslmode=***",
        ),
        ("postgresql://me:a/b@c@host/db", "postgresql://me:***@host/db"),
        ("from http://me:a@b:1/x to 'http://c:2/y'", "from http://me:***@b:1/x to 'http://c:2/y'"),
        ("--x 'postgresql://u:p@h/d?a=b' --seeds 3", "--x 'postgresql://u:***@h/d?a=***' --seeds 3"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("at 12:30 a@b.c wrote", "at 12:30 a@b.c wrote"),
    ],
)
def test_what_is_shown_of_an_address(text, shown):
    assert store_uri.shown(text) == shown


def test_environment_says_what_the_numbers_were_made_with():
    found = provenance.describe("cpu")
    assert {"bench", "python", "torch", "numpy", "platform", "processor", "device", "torch_threads"} <= set(
        found
    )
    assert found["memory_bytes"] > 2**28
    assert 1 <= found["usable_cpus"] <= found["logical_cpus"]
    assert all(isinstance(value, int | float | str) for value in found.values())


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, bench.tracking.store, bench.tracking.ui, bench.system.provenance as p; p.describe();"
        "print({'mlflow', 'torch', 'pandas', 'sqlalchemy', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@pytest.fixture
def git(tmp_path):
    """Run git in a repository of its own."""

    def run(*words):
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
        who |= {"GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(
            command, env=os.environ | who, capture_output=True, text=True, check=True
        ).stdout

    return run


def commit_of(folder):
    provenance.git_commit.cache_clear()
    return provenance.git_commit(folder)


def test_git_commit_of_a_folder(git, tmp_path):
    assert commit_of(tmp_path) == ""
    git("init")
    assert commit_of(tmp_path) == ""
    (tmp_path / "reports").mkdir()
    for name in ("a", "reports/b"):
        (tmp_path / name).write_text("1")
        git("add", name)
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    assert commit_of(tmp_path) == commit
    (tmp_path / "reports" / "b").write_text("2")
    (tmp_path / "untracked").touch()
    os.utime(tmp_path / "a", (1, 1))
    assert commit_of(tmp_path) == commit, "what a study writes is no change of the code"
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"
    git("add", "a")
    assert commit_of(tmp_path) == f"{commit}-dirty"


@pytest.mark.parametrize("attributes", [".gitattributes", ".git/info/attributes"])
def test_a_strangers_repository_starts_nothing(git, tmp_path, attributes):
    git("init")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / ".gitattributes").touch()
    git("add", ".")
    git("commit", "-m", "first")
    commit, pwned = git("rev-parse", "HEAD").strip(), tmp_path / "pwned"
    (tmp_path / attributes).parent.mkdir(exist_ok=True)
    (tmp_path / attributes).write_text("*.txt filter=one=two diff=x")
    (tmp_path / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (tmp_path / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {pwned}\n")
        (tmp_path / "hooks" / hook).chmod(0o755)
    for name, value in {
        "core.fsmonitor": f"touch {pwned}; false",
        "core.hooksPath": "hooks",
        "filter.one=two.clean": f"touch {pwned}; cat",
        "filter.one=two.process": f"touch {pwned}",
        "filter.one=two.required": "true",
        "diff.external": f"touch {pwned}",
        "diff.x.textconv": f"touch {pwned}",
    }.items():
        git("config", name, value)
    os.utime(tmp_path / "a.txt", (1, 1))
    dirty = attributes == ".gitattributes"  # which is a tracked file that differs
    assert commit_of(tmp_path) == commit + "-dirty" * dirty
    assert not pwned.exists()


def test_a_strangers_repository_fetches_nothing(git, tmp_path):
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    pwned = tmp_path / "pwned"
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(tmp_path),
        "remote.origin.uploadpack": f"touch {pwned};",
    }.items():
        git("config", name, value)
    tree = git("rev-parse", "HEAD^{tree}").strip()
    (tmp_path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    assert commit_of(tmp_path) == ""
    assert not pwned.exists()


def test_a_process_is_known_by_host_number_and_start():
    host, number, start = processes.this_process().rsplit(":", 2)
    assert not processes.has_ended(f"{host}:{number}:{start}")
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # field 22: see proc(5)
    assert start.endswith(f"+{ticks}"), "no date: a clock can be set back"
    assert processes.has_ended(f"{host}:{number}:{start}0")
    assert not processes.has_ended(f"elsewhere:{number}:{start}0")
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    assert processes.has_ended(f"{host}:{gone.pid}:{start}")


def test_tags_of_the_scenario_reach_the_run(sqlite_uri):
    store = new_store(sqlite_uri)
    _, arm = open_levels(store)
    tags = store.connection.client.get_run(record(store, arm, spec())).data.tags
    assert SCENARIO.items() <= tags.items()


def test_several_open_one_run_at_the_same_moment(tmp_path, new_store):
    """All of its params are written, and none is refused what another has just written."""
    uri = new_store(tmp_path / "mlflow.db")
    stores = [open_store(uri, "bench/small_similar", create=True) for _ in range(6)]
    run_id = stores[0].open_study("small_similar", "a key", {}, {})
    for attempt in range(1, 4):
        params = {f"{attempt} {number}": number for number in range(40)}

        def open_it(store, params=params):
            return store.open_study("small_similar", "a key", {"a": "tag"}, params)

        with ThreadPoolExecutor(len(stores)) as pool:
            assert set(pool.map(open_it, stores)) == {run_id}
        assert len(stores[0].connection.client.get_run(run_id).data.params) == attempt * len(params)
