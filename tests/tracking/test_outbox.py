"""What waits for the store, what it refuses, and what is deleted under a study that runs."""

import json
import logging
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.core.errors import RefusedError, StoreAwayError
from bench.core.runs import Purpose
from bench.tracking.live_run import Point
from bench.tracking.operations import Close, LogDataset, Upload, Write, as_line, from_line
from bench.tracking.outbox import Outbox
from bench.tracking.store import open_store, open_study_store
from tests.support.tracking_contract import SCENARIO, done, open_levels, record, spec


@pytest.fixture(scope="module")
def made(tmp_path_factory, new_store):
    """The file of a store with an empty experiment."""
    folder = tmp_path_factory.mktemp("made")
    open_store(new_store(folder / "mlflow.db"), "toy", create=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    return folder / "mlflow.db"


@pytest.fixture
def uri(made, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(made, tmp_path / "home" / "mlflow.db")
    return f"sqlite:///{tmp_path}/home/mlflow.db"


@contextmanager
def away(uri, monkeypatch):
    """Let all that is asked of MLflow fail as if nobody answered."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def fail(*_arguments, **_options):
        raise ConnectionRefusedError("[Errno 111] Connection refused")

    with monkeypatch.context() as patch:
        for name in ("get_run", "_search_runs", "log_batch", "create_run", "update_run_info", "log_inputs"):
            patch.setattr(SqlAlchemyStore, name, fail)
        patch.setattr(SqlAlchemyStore, "get_experiment", fail)
        yield


def client(store):
    return store.connection.client


def test_an_operation_reads_back_as_it_was():
    operation = Write("provisional-1", [["val/accuracy", 0.5, 1, 2]], {"a": "1"}, {"b": "é\n"})
    assert from_line(as_line(operation)) == operation
    for damaged in (b"", b"\0" * 40, b"[]", b'{"version": 99}', b'{"version": 1, "operation": "Drop"}'):
        with pytest.raises(ValueError, match=r"."):
            from_line(damaged)


def test_a_damaged_entry_is_set_aside_and_holds_up_nothing(tmp_path):
    outbox, arrived = Outbox(tmp_path), []
    outbox.add(LogDataset("run", "a", "d" * 64, "here"))
    with outbox._entries.open("ab") as entries:
        entries.write(b"\0" * 100 + b"\n")
    outbox.add(LogDataset("run", "b", "d" * 64, "here"))
    (tmp_path / "done").write_bytes(b"")  # as a power cut may leave it
    assert [op.name for op in outbox.waiting()] == ["a", "b"]
    assert outbox.deliver(lambda operation: arrived.append(operation.name)) == 3
    assert arrived == ["a", "b"]
    assert outbox.is_empty
    assert len((tmp_path / "refused.jsonl").read_text().splitlines()) == 1


def test_what_is_refused_is_set_aside_with_its_reason_and_its_file(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    (tmp_path / "weights").write_text("w")
    outbox.add(Upload("run", "weights", str(tmp_path / "weights")))
    outbox.add(Close("run", "FINISHED", 1))
    arrived = []

    def apply(operation):
        if isinstance(operation, Upload):
            raise RefusedError("too long")
        arrived.append(operation)

    outbox.deliver(apply)
    assert arrived == [Close("run", "FINISHED", 1)]
    (line,) = (tmp_path / "outbox" / "refused.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["reason"] == "too long"
    assert Path(json.loads(entry["entry"])["file"]).read_text() == "w"


@pytest.mark.parametrize("waiting", [False, True], ids=["now", "with writes waiting"])
@pytest.mark.parametrize("level", ["study", "arm", "run"])
def test_what_is_deleted_while_it_goes_on_is_restored(uri, monkeypatch, level, waiting):
    store = open_study_store(uri, "toy")
    study, arm = open_levels(store)
    live = store.start(spec(seed=1), arm, "seed 1", {}, SCENARIO)
    deleted = {"study": study, "arm": arm, "run": live.run_id}[level]
    client(store).delete_run(deleted)
    if waiting:
        with away(uri, monkeypatch):
            live.finish(done(spec(seed=1)))
            store.writer.close(arm, "FINISHED")
            store.writer.close(study, "FINISHED")
    else:
        live.finish(done(spec(seed=1)))
        store.writer.close(arm, "FINISHED")
        store.writer.close(study, "FINISHED")
    store.settle()
    assert list(store.find([spec(seed=1).key])) == [spec(seed=1).key]
    for run_id in (study, arm, live.run_id):
        info = client(store).get_run(run_id).info
        assert (info.lifecycle_stage, info.status) == ("active", "FINISHED")


def test_a_run_that_is_removed_for_good_is_made_again(uri):
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    live = store.start(spec(seed=1), arm, "seed 1", {"batch_size": 4}, SCENARIO)
    first = live.run_id
    client(store).delete_run(first)
    client(store).database._hard_delete_run(first)
    live.finish(done(spec(seed=1)))
    (run,) = store.find([spec(seed=1).key]).values()
    assert run.run_id != first
    assert list(store.reader.curves_frame([run]).step) == [0, 1, 2]
    assert client(store).get_run(run.run_id).data.params["batch_size"] == "4"


def test_a_deleted_experiment_is_named_and_all_waits_until_it_is_restored(uri):
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    live = store.start(spec(seed=1), arm, "seed 1", {}, SCENARIO)
    experiment = store.connection.experiment_id
    client(store).delete_experiment(experiment)
    live.finish(done(spec(seed=1)))
    with pytest.raises(StoreAwayError, match=r"'toy' was deleted; .* wait in .*mlflow experiments restore"):
        store.settle()
    client(store).restore_experiment(experiment)
    store.settle()
    assert list(store.find([spec(seed=1).key])) == [spec(seed=1).key]


def test_a_write_that_the_store_can_not_digest_is_no_absence(uri, monkeypatch, caplog):
    """MLflow calls it an internal error, as it does a store that is broken."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = open_study_store(uri, "toy")
    run_id = store.writer.create_run("seed 1", {})
    log_batch = SqlAlchemyStore.log_batch

    def picky(self, run_id, metrics, params, tags):
        if any(tag.key == "odd" for tag in tags):
            raise MlflowException("A string literal cannot contain it")
        return log_batch(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", picky)
    store.writer.write(run_id, [], {}, {"odd": "1"})
    store.writer.write(run_id, [], {}, {"good": "1"})
    store.settle()
    assert client(store).get_run(run_id).data.tags["good"] == "1"
    assert "set aside" in caplog.text
    assert "away" not in caplog.text


def test_texts_are_made_such_that_every_database_takes_them(uri):
    store = open_study_store(uri, "toy")
    run_id = store.writer.create_run("x" * 900, {"nul": "a\0b", "half": "\ud800"})
    store.writer.write(run_id, [], {"p": "\0"}, {})
    run = client(store).get_run(run_id)
    assert run.data.tags["nul"] == "a\N{REPLACEMENT CHARACTER}b"
    assert run.data.tags["half"] == "?"
    assert run.info.run_name == "x" * 250


def test_trials_come_back_with_their_curves_also_those_that_waited(uri, monkeypatch):
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    trials = [spec(purpose=Purpose.TRIAL, rate=rate) for rate in (0.1, 0.2)]
    record(store, arm, trials[1], trial=1, tuning="a")
    record(store, arm, trials[0], trial=0, tuning="b")
    with away(uri, monkeypatch):
        record(store, arm, trials[0], trial=0, tuning="a")
        with pytest.raises(StoreAwayError):
            store.trials(trials[0].arm.key, ())
    found = store.trials(trials[0].arm.key, ())
    assert sorted((trial.tags["trial"], trial.tags["tuning"]) for trial in found) == [
        ("0", "a"),
        ("0", "b"),
        ("1", "a"),
    ]
    values = store.reader.curve_values(found, "val/accuracy")
    assert set(values) == {trial.run_id for trial in found}
    for curve in values.values():
        assert [step for step, _ in curve] == [0, 1, 2]
        assert [value for _, value in curve] == pytest.approx([0.5, 0.6, 0.7])


@pytest.mark.parametrize("damage", ["empty", "gone"])
def test_a_run_whose_files_are_damaged_is_not_done(uri, tmp_path, damage, caplog):
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    (tmp_path / "w").write_bytes(b"weights")
    run_id = record(store, arm, spec(seed=1), files={"weights/best": tmp_path / "w"})
    keys = [spec(seed=1).key]
    (run,) = store.reader.find(keys).values()
    file = store.connection.artifact_file(run_id, "weights/best")
    assert file.read_bytes() == b"weights"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"")
    assert store.reader.find(keys) == {}
    assert store.reader.runs_of_arm(run.tags["bench.arm_key"], Purpose.FINAL) == []
    assert not open_study_store(uri, "toy").has_ended(keys[0], 0)
    assert "does not count" in caplog.text


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_home_that_is_moved_or_copied_has_its_artifacts_with_it(uri, tmp_path, monkeypatch, how):
    store = open_study_store(uri, "toy")
    _, arm = open_levels(store)
    (tmp_path / "w").write_bytes(b"weights")
    record(store, arm, spec(seed=1), files={"weights": tmp_path / "w"})
    client(store).database.engine.dispose()
    there = tmp_path / "elsewhere"
    (shutil.move if how == "moved" else shutil.copytree)(tmp_path / "home", there)
    monkeypatch.setenv("BENCH_HOME", str(there))
    before = sorted((tmp_path / "home").rglob("*"))
    moved = open_study_store(f"sqlite:///{there}/mlflow.db", "toy")
    (run,) = moved.find([spec(seed=1).key]).values()
    assert run.artifacts.startswith(there.as_uri())
    assert list(moved.reader.read_all([run], "weights")) == [b"weights"]
    new = record(moved, arm, spec(seed=2), files={"weights": tmp_path / "w"})
    assert moved.connection.artifact_file(new, "weights").is_relative_to(there)
    assert sorted((tmp_path / "home").rglob("*")) == before, "the one that it was copied from is left alone"


def test_points_written_twice_are_one(uri):
    store = open_study_store(uri, "toy")
    run_id = store.writer.create_run("seed 1", {})
    for _ in range(2):
        store.writer.write(run_id, [Point("a", 0.5, 1, 0)], {"p": "1"}, {})
    assert len(client(store).get_metric_history(run_id, "a")) == 1


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.WARNING)
