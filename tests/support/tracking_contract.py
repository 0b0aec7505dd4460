"""What every store must do, whether it is a file, a server or a database: one suite, run over each."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pandas as pd
import pytest

from bench.core.errors import InputError
from bench.core.hashing import canonical_json
from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.tracking.frames import FoundRun
from bench.tracking.live_run import CURVE as PREFIX
from bench.tracking.store import open_store

ARMS = {name: Arm("toy", name, {"head": "linear"}) for name in ("scratch", "full")}
SCENARIO = {"size": "small", "similarity": "similar"}
CURVE = tuple(
    {"step": e, "train/loss": 1 / (e + 1), "val/accuracy": 0.5 + 0.1 * e, "learning_rate": 0.1}
    for e in range(3)
)


def new_store(uri):
    return open_store(uri, f"toy-{uuid.uuid4().hex[:8]}", create=True)


def open_levels(store, key="a1", strategy="full"):
    study = store.open_study("toy", key, SCENARIO, {"question": "who wins?"})
    arm = store.open_arm(study, ARMS[strategy], SCENARIO, {"head": "linear"})
    return study, arm


def spec(strategy="full", seed=0, purpose=Purpose.FINAL, rate=0.01):
    return RunSpec(ARMS[strategy], {"learning_rate": rate, "stages": 2, "optimizer": "sgd"}, seed, purpose)


def done(of, accuracy=0.7):
    metrics = {"val/accuracy": accuracy}
    if of.purpose is Purpose.FINAL:
        metrics["test/accuracy"] = accuracy - 0.1
    return RunResult(
        of,
        Status.DONE,
        metrics,
        CURVE,
        2,
        3,
        1.5,
        0.25,
        1000,
        2**40,
        environment={"torch": "2", "threads": 1},
    )  # fmt: skip


def record(store, arm, of, result=None, files=None, **tags):
    live = store.start(of, arm, f"seed {of.seed}", {"batch_size": 32}, {**SCENARIO, **tags})
    live.finish(result or done(of), files or {})
    return live.run_id


def seen(store, run_id):
    """A run as it is now, whether it has ended or not."""
    run = store.connection.client.get_run(run_id)
    names = frozenset(name for name in run.data.metrics if name.startswith(PREFIX))
    return FoundRun(run_id, "", Status.DONE, {}, {}, run.data.tags, run.info.artifact_uri, names)


def leave_running(uri, experiment, arm, pipe):
    store = open_store(uri, experiment, create=True)
    pipe.send(store.start(spec(seed=7), arm, "seed 7", {}, {}).run_id)
    pipe.recv()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(uri, folder, before=()):
    """Run `run_ui` as a person would: yield the process and the address that it prints, then press Ctrl-C."""
    code = f"from bench.tracking.ui import run_ui; run_ui({uri!r}, '127.0.0.1', {free_port()})"
    environment = {**os.environ, "BENCH_HOME": str(folder)}
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("The MLflow UI is at http://127.0.0.1:"), line
        yield process, line.split()[5]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class StoreContract:
    """Subclasses give the fixture `uri`."""

    def test_three_levels_can_be_told_by_parent_and_by_tag(self, uri):
        store = new_store(uri)
        study, arm = open_levels(store)
        run = store.connection.client.get_run(record(store, arm, spec(seed=3)))
        above = store.connection.client.get_run(arm)
        assert run.data.tags["mlflow.parentRunId"] == arm
        assert above.data.tags["mlflow.parentRunId"] == study
        assert run.info.status == "FINISHED"
        expected = {
            "study": "toy",
            "strategy": "full",
            "seed": "3",
            "purpose": "final",
            "bench.status": "done",
        }
        assert expected.items() <= run.data.tags.items()
        assert run.data.tags["mlflow.user"]
        assert run.data.params == {
            "batch_size": "32",
            "learning_rate": "0.01",
            "stages": "2",
            "optimizer": "sgd",
        }
        assert above.data.tags["purpose"] == "arm"
        assert store.connection.client.get_run(study).data.tags["purpose"] == "study"

    def test_opening_again_resumes(self, uri):
        store = new_store(uri)
        study, arm = open_levels(store)
        store.writer.close(arm, "FINISHED")
        store.writer.close(study, "FAILED")
        assert open_levels(
            open_store(
                uri, store.connection.client.get_experiment(store.connection.experiment_id).name, create=True
            )
        ) == (
            study,
            arm,
        )
        assert store.connection.client.get_run(study).info.status == "RUNNING"
        assert store.connection.client.get_run(arm).info.status == "RUNNING"
        assert store.open_study("toy", "a1", {}, {"question": "changed", "new": 1}) == study
        assert store.connection.client.get_run(study).data.params == {"question": "who wins?", "new": "1"}

    def test_an_arm_moves_to_a_study_that_opens_it_later(self, uri):
        store = new_store(uri)
        _, arm = open_levels(store, key="a1")
        second, again = open_levels(store, key="b2")
        assert again == arm
        assert store.connection.client.get_run(arm).data.tags["mlflow.parentRunId"] == second

    def test_find_returns_what_is_done_and_nothing_else(self, uri):
        store = new_store(uri)
        _, arm = open_levels(store)
        kept = record(store, arm, spec(seed=0))
        record(store, arm, spec(seed=1), RunResult(spec(seed=1), Status.FAILED, error="loss is NaN"))
        record(store, arm, spec(seed=2, purpose=Purpose.TRIAL), trial=0)
        running = store.start(spec(seed=3), arm, "seed 3", {}, {})
        keys = [spec(seed=s).key for s in range(5)] + [spec(seed=2, purpose=Purpose.TRIAL).key]
        found = store.find(keys)
        assert list(found) == [spec(seed=0).key]
        assert found[spec(seed=0).key].run_id == kept
        assert found[spec(seed=0).key].params == spec().params
        assert found[spec(seed=0).key].metrics["test/accuracy"] == pytest.approx(0.6)
        assert list(store.reader.runs_frame(keys)["error"].dropna().loc[lambda e: e != ""]) == ["loss is NaN"]
        store.writer.close(running.run_id, "KILLED")
        assert list(store.find(keys)) == [spec(seed=0).key]

    def test_runs_frame_has_the_columns_of_runs_csv(self, uri):
        store = new_store(uri)
        _, arm = open_levels(store)
        of = [spec(seed=s) for s in range(3)]
        record(store, arm, of[1], RunResult(of[1], Status.FAILED, error="out of memory"))
        run_ids = {
            of[1].key: record(store, arm, of[1], done(of[1], 0.9)),
            of[0].key: record(store, arm, of[0]),
        }
        record(store, arm, of[2], RunResult(of[2], Status.FAILED, error="out of memory"))
        frame = store.reader.runs_frame([s.key for s in of] + ["f" * 64])
        assert list(frame) == [
            *("study", "size", "similarity", "strategy", "seed", "status", "val_accuracy", "test_accuracy"),
            *("train_seconds", "eval_seconds", "cached_seconds", "feature_seconds"),
            *("steps", "trainable_parameters", "peak_memory_bytes"),
            *("run_key", "mlflow_run_id", "error", "param_learning_rate", "param_optimizer", "param_stages"),
        ]
        assert list(frame.status) == ["done", "done", "failed"]
        assert list(frame.seed) == [0, 1, 2]
        first = frame.iloc[1].to_dict()
        assert first["mlflow_run_id"] == run_ids[of[1].key]
        assert (first["val_accuracy"], first["steps"], first["peak_memory_bytes"]) == (0.9, 3, 2**40)
        assert (first["size"], first["param_stages"], first["param_optimizer"]) == ("small", 2, "sgd")
        assert pd.isna(frame.test_accuracy[2])
        assert len(store.reader.runs_frame([])) == 0

    def test_trials_frame_follows_the_trial_numbers(self, uri):
        store = new_store(uri)
        _, arm = open_levels(store)
        trial = [spec(purpose=Purpose.TRIAL, rate=r) for r in (0.1, 0.2, 0.3)]
        record(store, arm, trial[1], RunResult(trial[1], Status.PRUNED, {"val/accuracy": 0.1}), trial=10)
        record(store, arm, trial[0], trial=9)
        record(store, arm, trial[2], RunResult(trial[2], Status.FAILED, error="diverged"), trial=11)
        frame = store.reader.trials_frame([ARMS["scratch"].key, ARMS["full"].key])
        assert list(frame.trial) == [9, 10, 11]
        assert list(frame.status) == ["done", "pruned", "failed"]
        assert list(frame.param_learning_rate) == [0.1, 0.2, 0.3]
        assert len(store.reader.trials_frame([ARMS["scratch"].key])) == 0

    def test_only_what_has_the_tags_is_taken(self, uri):
        """A trial of another tuning, and a run of before all was forgotten, are none that were asked for."""
        store = new_store(uri)
        _, arm = open_levels(store)
        trial, final = spec(purpose=Purpose.TRIAL), spec(seed=1)
        tuning = {"bench.tuning": canonical_json(["median", 0, 2])}
        failed = RunResult(trial, Status.FAILED, error="loss is NaN", diverged=True)
        record(store, arm, trial, trial=1, **tuning)
        record(store, arm, trial, failed, trial=2, **tuning)
        record(store, arm, final, **{"bench.generation": "a"})
        diverged, first = store.trials(trial.arm.key, ())
        assert (first.tags["trial"], first.failed_in_passing) == ("1", False)
        assert (diverged.tags["trial"], diverged.failed_in_passing) == ("2", False)
        values = [(row["step"], row["val/accuracy"]) for row in CURVE]
        assert store.reader.curve_values([diverged, first], "val/accuracy") == {
            first.run_id: values,
            diverged.run_id: [],
        }
        assert store.reader.curve_values([first], "val/other") == {first.run_id: []}
        for tags, there in (
            ({}, True),
            ({"bench.generation": "a"}, True),
            ({"bench.generation": "b"}, False),
        ):
            assert bool(store.find([final.key], {"bench.arm_key": final.arm.key, **tags})) is there
            assert store.has_ended(final.key, 0, tags) is there

    def test_an_arm_is_forgotten_by_a_mark(self, uri):
        store = new_store(uri)
        key = ARMS["full"].key
        assert store.reader.generation(key) == ""
        store.forget_arm(key, "a")  # there is none
        open_levels(store)
        assert store.reader.generation(key) == ""
        store.forget_arm(key, "a")
        store.forget_arm(key, "b")
        assert store.reader.generation(key) == "b"
        open_levels(store)
        assert store.reader.generation(key) == "b"

    def test_curves_and_predictions_come_back_as_they_were_logged(self, uri, tmp_path):
        store = new_store(uri)
        _, arm = open_levels(store)
        table = pd.DataFrame({"image": ["007", "b.png"], "target": [0, 1], "prediction": [1, 1]})
        table.to_csv(tmp_path / "any.csv", index=False)
        (tmp_path / "best").write_bytes(b"weights")
        files = {"predictions.csv": tmp_path / "any.csv", "weights/best.safetensors": tmp_path / "best"}
        run_id = record(store, arm, spec(seed=4), files=files)
        curves = store.reader.curves_frame([seen(store, run_id)])
        assert list(curves) == ["strategy", "seed", "step", "learning_rate", "train_loss", "val_accuracy"]
        assert list(curves.step) == [0, 1, 2]
        assert list(curves.val_accuracy) == pytest.approx([0.5, 0.6, 0.7])
        predictions = store.reader.predictions_frame([seen(store, run_id)])
        assert list(predictions) == ["strategy", "seed", "image", "target", "prediction"]
        assert list(predictions.image) == ["007", "b.png"]
        assert set(predictions.seed) == {4}
        assert [f.path for f in store.connection.client.list_artifacts(run_id, "weights")] == [
            "weights/best.safetensors"
        ]

    def test_missing_predictions_are_an_input_error(self, uri):
        store = new_store(uri)
        _, arm = open_levels(store)
        run_id = record(store, arm, spec())
        with pytest.raises(InputError):
            store.reader.predictions_frame([seen(store, run_id)])

    def test_live_evaluations_are_visible_and_not_doubled(self, uri, monkeypatch):
        monkeypatch.setattr("bench.tracking.live_run.FLUSH_SECONDS", 0.0)
        store = new_store(uri)
        _, arm = open_levels(store)
        live = store.start(spec(), arm, "seed 0", {"batch_size": 32}, SCENARIO)
        for row in CURVE[:2]:
            live.log_evaluation(int(row["step"]), row)
        assert list(store.reader.curves_frame([seen(store, live.run_id)]).step) == [0, 1]
        live.finish(done(spec()))
        assert list(store.reader.curves_frame([seen(store, live.run_id)]).step) == [0, 1, 2]
        history = store.connection.client.get_metric_history(live.run_id, "curve/val/accuracy")
        assert [point.step for point in history] == [0, 1, 2]

    def test_what_mlflow_refuses_is_made_legal(self, uri):
        store = new_store(uri)
        study, arm = open_levels(store)
        result = RunResult(
            spec(), Status.FAILED, {"val/loss[0]=x": 1.0, "val/f1": float("inf")}, error="loss is NaN" * 900
        )
        live = store.start(spec(), arm, "odd", {"a[0]=b": "x" * 7000, "//../c": 1}, {"note": "y" * 9000})
        live.finish(result)
        run = store.connection.client.get_run(live.run_id)
        assert run.info.status == "FAILED"
        assert run.data.metrics["val/loss_0__x"] == 1.0
        assert "val/f1" not in run.data.metrics
        assert run.data.tags["bench.not_finite"] == "val/f1 at 0: inf"
        assert len(run.data.params["a_0__b"]) == 6000
        assert run.data.params["c"] == "1"
        many = {f"p{i}": i for i in range(250)}
        store.writer.write(study, [], many, {f"t{i}": i for i in range(150)})
        assert many.keys() <= store.connection.client.get_run(study).data.params.keys()

    def test_data_set_is_logged_with_its_digest(self, uri):
        store = new_store(uri)
        study, _ = open_levels(store)
        store.writer.log_dataset(study, "photo_textures", "ab" * 32, "scikit-image")
        data = store.connection.client.get_run(study).inputs.dataset_inputs[0].dataset
        assert (data.name, data.digest) == ("photo_textures", "ab" * 18)

    def test_data_in_a_folder_of_a_long_and_odd_path_are_logged(self, uri):
        store = new_store(uri)
        study, _ = open_levels(store)
        path = "/data" + "/long" * 200 + "/not UTF-8 \udcff"
        store.writer.log_dataset(study, path, "ab" * 32, path)
        data = store.connection.client.get_run(study).inputs.dataset_inputs[0].dataset
        assert (len(data.name), data.name[-17:]) == (500, "/long/not UTF-8 ?")
        assert json.loads(data.source) == {"origin": path.replace("\udcff", "?")}

    def test_one_experiment_is_made_however_many_ask(self, uri):
        name = f"toy-{uuid.uuid4().hex[:8]}"
        with ThreadPoolExecutor(4) as pool:
            stores = list(pool.map(lambda _: open_store(uri, name, create=True), range(4)))
        assert len({store.connection.experiment_id for store in stores}) == 1

    def test_a_deleted_experiment_is_named(self, uri):
        store = new_store(uri)
        name = store.connection.client.get_experiment(store.connection.experiment_id).name
        store.connection.client.delete_experiment(store.connection.experiment_id)
        with pytest.raises(InputError, match=r"was deleted.*mlflow experiments restore"):
            open_store(uri, name, create=True)

    def test_leftovers_of_a_killed_process_are_ended(self, uri):
        store = new_store(uri)
        study, arm = open_levels(store)
        alive = store.start(spec(seed=1), arm, "seed 1", {}, {}).run_id
        elsewhere = store.start(spec(seed=2), arm, "seed 2", {}, {}).run_id
        store.connection.client.set_tag(elsewhere, "bench.process", "another-host:1:1")
        name = store.connection.client.get_experiment(store.connection.experiment_id).name
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.tracking.store", "mlflow.store.tracking.sqlalchemy_store"])
        here, there = context.Pipe()
        process = context.Process(target=leave_running, args=(uri, name, arm, there))
        process.start()
        there.close()
        left = here.recv()
        assert store.fail_leftovers(study) == 0
        process.kill()
        process.join()
        assert store.fail_leftovers(study) == 1
        status = {
            run_id: store.connection.client.get_run(run_id).info.status
            for run_id in (left, alive, elsewhere, study)
        }
        assert status == {left: "KILLED", alive: "RUNNING", elsewhere: "RUNNING", study: "RUNNING"}
