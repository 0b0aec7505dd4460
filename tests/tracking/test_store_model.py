"""The store and its outbox against a model, events in any order: nothing is lost, nothing there twice."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bench.core.errors import StoreAwayError
from bench.tracking.operations import BEGUN
from bench.tracking.outbox import Outbox
from bench.tracking.store import open_store, open_study_store
from tests.support.tracking_contract import SCENARIO, done, open_levels, spec

STORE = "mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore."
ASKED = ("get_experiment", "get_run", "_search_runs", "log_batch", "create_run", "update_run_info")


class Killed(BaseException):
    """The process ends here; nothing of it runs any more."""


@pytest.fixture(scope="module")
def made(tmp_path_factory, new_store):
    """The file of a store with an empty experiment."""
    folder = tmp_path_factory.mktemp("made")
    open_store(new_store(folder / "mlflow.db"), "toy", create=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    return folder / "mlflow.db"


class StoreMachine(RuleBasedStateMachine):
    """A study of two processes: one that is killed and begun again, one that only delivers."""

    made: Path

    @initialize()
    def begin(self):
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack.enter_context(mock.patch.dict(os.environ, BENCH_HOME=str(self.folder)))
        shutil.copy(self.made, self.folder / "mlflow.db")
        self.absence = None
        self.store = self.open()
        self.study, self.arm = open_levels(self.store)
        self.live = {}  # seed to a run that goes on in this process
        self.ended = {}  # seed to its accuracy: said to be done
        self.deleted = set()
        self.seed = 0

    def open(self):
        return open_study_store(f"sqlite:///{self.folder}/mlflow.db", "toy", experiment_id="1")

    def teardown(self):
        if hasattr(self, "stack"):
            self.return_store()
            self.check_all_is_delivered()
            self.store.connection.client.database.engine.dispose()
            self.stack.close()

    @rule()
    def start_run(self):
        self.seed += 1
        of = spec(seed=self.seed)
        self.live[self.seed] = self.store.start(of, self.arm, f"seed {self.seed}", {"a": 1}, SCENARIO)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), step=st.integers(0, 2))
    def log_evaluation(self, data, step):
        live = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        live._flush_at = 0.0
        live.log_evaluation(step, {"val/accuracy": 0.5 + 0.1 * step})

    @precondition(lambda self: self.live)
    @rule(data=st.data(), accuracy=st.sampled_from([0.25, 0.5, 0.75]))
    def finish_run(self, data, accuracy):
        seed = data.draw(st.sampled_from(sorted(self.live)))
        file = self.folder / "weights"
        file.write_text(str(seed))
        self.live.pop(seed).finish(done(spec(seed=seed), accuracy), {"weights": file})
        self.ended[seed] = accuracy

    @precondition(lambda self: not self.absence)
    @rule()
    def lose_store(self):
        self.absence = ExitStack()
        for name in ASKED:
            self.absence.enter_context(mock.patch(STORE + name, side_effect=ConnectionRefusedError))

    @precondition(lambda self: self.absence)
    @rule()
    def return_store(self):
        if self.absence:
            self.absence.close()
            self.absence = None

    @rule()
    def deliver_from_another_process(self):
        other = self.open()
        if self.absence:
            if not other._outbox.is_empty:
                with pytest.raises(StoreAwayError):
                    other.settle()
        else:
            other.settle()

    @rule()
    def start_run_while_away(self):
        if not self.absence:
            self.lose_store()
        self.start_run()

    @rule(lost=st.integers(1, 4))
    def kill_during_delivery(self, lost):
        """The store is back; who delivers dies after some writes, before it has noted the last of them."""
        self.return_store()
        left = [lost]
        write = Outbox._deliver

        def deliver(self, line, apply):
            write(self, line, apply)
            left[0] -= 1
            if not left[0]:
                raise Killed

        with mock.patch.object(Outbox, "_deliver", deliver), suppress(Killed):
            self.open()

    @rule()
    def kill(self):
        """The process dies and is begun again; the runs that went on in it are lost, and known to be."""
        self.live.clear()
        self.store = self.open()
        if not self.absence:
            self.study, self.arm = open_levels(self.store)

    @precondition(lambda self: self.live and not self.absence)
    @rule(data=st.data())
    def delete_what_goes_on(self, data):
        live = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        if not live.run_id.startswith("provisional-"):
            self.store.connection.client.delete_run(live.run_id)

    @precondition(lambda self: not self.absence)
    @rule(what=st.sampled_from(["study", "arm"]))
    def delete_a_level(self, what):
        level = {"study": self.study, "arm": self.arm}[what]
        if not level.startswith("provisional-"):  # what still waits in the outbox nobody can delete
            self.store.connection.client.delete_run(level)
        self.study, self.arm = open_levels(self.store)

    @precondition(lambda self: self.ended and not self.absence)
    @rule(data=st.data())
    def delete_what_is_done(self, data):
        """A person removes a result that has been delivered: it is to be done again."""
        self.store.settle()
        seed = data.draw(st.sampled_from(sorted(self.ended)))
        (run,) = self.store.reader.find([spec(seed=seed).key]).values()
        self.store.connection.client.delete_run(run.run_id)
        del self.ended[seed]
        self.deleted.add(seed)

    @invariant()
    def what_is_done_is_known(self):
        for seed in getattr(self, "ended", {}):
            if not self.absence or spec(seed=seed).key in self.store._outbox.ended_keys():
                assert self.store.has_ended(spec(seed=seed).key, 0)

    def check_all_is_delivered(self):
        self.store.settle()
        keys = {spec(seed=seed).key: accuracy for seed, accuracy in self.ended.items()}
        found = self.store.reader.find(keys)
        assert {key: run.metrics["val/accuracy"] for key, run in found.items()} == pytest.approx(keys)
        every = self.store.reader.runs_of_arm(spec().arm.key, spec().purpose)
        assert sorted(run.key for run in every) == sorted(keys), "each is there once"
        for seed in self.ended:
            run = found[spec(seed=seed).key]
            assert list(self.store.reader.read_all([run], "weights")) == [str(seed).encode()]
            history = self.store.connection.client.get_metric_history(run.run_id, "curve/learning_rate")
            assert len(history) == len({point.step for point in history})
        begun = [run.data.tags.get(BEGUN) for run in self.store.connection.search("tags.purpose = 'final'")]
        assert len(begun) == len(set(begun)), "each was begun once"
        assert self.store._outbox.is_empty


@pytest.mark.slow
def test_the_store_and_its_outbox_do_what_the_model_does(made):
    machine = type("Machine", (StoreMachine,), {"made": made})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    few = settings(max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=few)
