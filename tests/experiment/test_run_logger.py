"""What a run leaves in a store: tags, values by step, files, its end; and what is told meanwhile."""

import json
import uuid

import pytest
import torch
from safetensors.torch import load as load_tensors

from bench.core.runs import Purpose, RunResult, RunSpec, Status
from bench.experiment.events import Evaluated, Message, RunEnded, RunStarted
from bench.experiment.plan import plan
from bench.experiment.run_executor import ExecutedRun
from bench.experiment.run_logger import PlannedRun, RunLogger
from bench.study.loading import load
from bench.tracking.store import open_store
from bench.tracking.writer import NOTE
from bench.training.targets.base import PredictionRecord

CURVE = tuple(
    {"step": step, "train/loss": 1.0 - step / 16, "val/loss": 0.5, "val/accuracy": 0.25 + step / 16}
    for step in (4, 8)
)
METRICS = {"train/loss": 0.75, "val/loss": 0.5, "val/accuracy": 0.75}


class Executor:
    """Gives what it is told to, as if it had been trained: each evaluation is judged."""

    def __init__(self, executed):
        self.executed, self.forgotten, self.asked, self.judged = list(executed), [], None, []

    def run_together(self, specs, parts, goings):
        self.asked = specs, parts, goings
        runs = [going for going in goings if going]
        for going, executed in zip(runs, self.executed, strict=True):
            if isinstance(executed, BaseException):
                raise executed
            self.judged += [going(row) for row in executed.result.curve]
            yield executed

    def forget(self, spec):
        self.forgotten.append(spec)


class Logged:
    """Runs of the tiny study, logged in an experiment of their own that has its study and its arm open."""

    def __init__(self, laid_out, uri, *executed):
        self.plan, self.arm = laid_out, laid_out.arms[0]
        self.store = open_store(uri, f"bench/tiny-{uuid.uuid4().hex}", create=True)
        study_run = self.store.open_study("tiny", "a key", {}, {})
        self.arm_run = self.store.open_arm(study_run, self.arm, {}, {})
        self.events, self.executor = [], Executor(executed)
        self.logger = RunLogger(self.plan, self.store, self.events.append, self.executor, {"size": "small"})

    def do(self, *planned):
        return list(self.logger.do(planned, self.arm_run))

    def stored(self):
        """The runs below the arm's, the first to begin first."""
        runs = self.store.connection.search(f"tags.\"mlflow.parentRunId\" = '{self.arm_run}'")
        return sorted(runs, key=lambda run: run.info.start_time)

    def read(self, run, file):
        client = self.store.connection.client
        with open(client.download_artifacts(run.info.run_id, file), "rb") as stored:  # noqa: PTH123
            return stored.read()

    def files(self, run):
        return {found.path for found in self.store.connection.client.list_artifacts(run.info.run_id)}


def spec_of(arm, seed=1, purpose=Purpose.FINAL):
    return RunSpec(arm, {"learning_rate": 0.01, "decay": 0.5}, seed, purpose)


def planned(spec, name="seed 1/3", judge=lambda _row: True, **others):
    return PlannedRun(spec, name, judge, {"bench.generation": "g"}, **others)


@pytest.fixture(scope="module")
def uri(tmp_path_factory, new_store):
    return new_store(tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def logged(tiny, uri):
    laid_out = plan(load(tiny))

    def make(*of):
        executed = [execute(laid_out.arms[0]) if callable(execute) else execute for execute in of]
        return Logged(laid_out, uri, *executed)

    return make


def final(arm):
    spec = spec_of(arm)
    result = RunResult(
        spec,
        Status.DONE,
        METRICS | {"test/accuracy": 0.625},
        CURVE,
        8,
        8,
        2.0,
        0.5,
        environment={"torch": "2"},
    )
    columns = {"image": ["a.png", "b.png"], "target": ["red", "blue"], "prediction": ["red", "red"]}
    return ExecutedRun(
        result, {"head.weight": torch.eye(3)[:, :2]}, PredictionRecord(columns), "stem 0, head 1"
    )


def pruned(arm):
    return ExecutedRun(RunResult(spec_of(arm, 1, Purpose.TRIAL), Status.PRUNED, METRICS, CURVE[:1], 4, 4))


def failed(arm):
    result = RunResult(spec_of(arm), Status.FAILED, error="loss is not finite", diverged=True)
    return ExecutedRun(result, traceback="in step\nloss is not finite\n")


def test_a_final_run_is_in_the_store_with_all_that_came_of_it(logged):
    made = logged(final)
    spec = spec_of(made.arm)
    (executed,) = made.do(planned(spec))
    (run,) = made.stored()
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "seed 1"
    expected = {
        "study": "tiny",
        "strategy": made.arm.strategy,
        "seed": "1",
        "purpose": "final",
        "size": "small",
    }
    expected |= {"bench.run_key": spec.key, "bench.arm_key": made.arm.key, "bench.status": "done"}
    assert tags.items() >= (expected | {"bench.generation": "g"}).items()
    assert json.loads(tags["bench.params"]) == spec.params
    assert json.loads(tags["bench.environment"]) == {"torch": "2"}
    assert "Test is read once" in tags[NOTE]
    parts = made.plan.splits[1]
    assert params["split"] == parts.hash
    assert params["learning_rate"] == "0.01"
    assert int(params["epochs"]) == made.plan.study.training.epochs
    assert metrics["test/accuracy"] == 0.625
    assert (metrics["train_seconds"], metrics["eval_seconds"], metrics["steps"]) == (2.0, 0.5, 8)
    curve = made.store.connection.client.get_metric_history(run.info.run_id, "curve/val/accuracy")
    assert [(point.step, point.value) for point in curve] == [(4, 0.5), (8, 0.75)]
    assert run.inputs.dataset_inputs[0].dataset.digest == made.plan.dataset.digest[:36]
    assert made.files(run) == {"weights.safetensors", "predictions.csv", "plan.txt"}
    assert made.read(run, "plan.txt") == b"stem 0, head 1"
    assert torch.equal(
        load_tensors(made.read(run, "weights.safetensors"))["head.weight"], torch.eye(3)[:, :2]
    )
    assert made.read(run, "predictions.csv").decode().splitlines()[1:] == ["a.png,red,red", "b.png,blue,red"]
    assert made.store.find([spec.key])[spec.key].run_id == run.info.run_id
    assert made.executor.forgotten == [spec], "its checkpoint goes when it is stored"
    assert executed.result.metrics["test/accuracy"] == 0.625


def test_what_happens_is_told_in_order(logged):
    made = logged(final)
    made.do(planned(spec_of(made.arm)))
    who = made.arm.strategy, "seed 1/3"
    assert made.events == [
        RunStarted(*who),
        Evaluated(*who, 0.5),
        Evaluated(*who, 0.75),
        RunEnded(*who, "val accuracy 0.750 in 2.5 s"),
    ]


def test_a_trial_is_judged_by_its_evaluations_and_keeps_no_files(logged):
    made = logged(pruned)
    spec, rows = spec_of(made.arm, 1, Purpose.TRIAL), []
    made.do(planned(spec, "seed 1, trial 2/5", lambda row: rows.append(row["val/accuracy"]) is not None))
    (run,) = made.stored()
    assert (rows, made.executor.judged) == ([0.5], [False])
    assert (run.info.status, run.data.tags["bench.status"]) == ("FINISHED", "pruned")
    assert run.info.run_name == "seed 1, trial 2"
    assert made.files(run) == set()
    assert "never sees test" in run.data.tags[NOTE]
    assert made.events[-1].outcome == "pruned after 4 steps, val accuracy 0.750"


def test_of_a_run_that_failed_the_store_has_the_reason_and_where(logged, monkeypatch):
    made = logged(failed)
    monkeypatch.setenv("BENCH_DEBUG", "1")
    made.do(planned(spec_of(made.arm)))
    (run,) = made.stored()
    assert run.info.status == "FAILED"
    assert run.data.tags["bench.error"] == "loss is not finite"
    assert run.data.tags["bench.diverged"] == "yes"
    assert made.files(run) == {"traceback.txt"}
    assert made.read(run, "traceback.txt") == b"in step\nloss is not finite\n"
    message, ended = made.events[-2:]
    assert message == Message("in step\nloss is not finite\n")
    assert ended.outcome == "failed: loss is not finite"


def test_a_known_run_only_helps(logged):
    made = logged(final)
    known = planned(spec_of(made.arm, 2), "seed 2/3", known=True)
    assert len(made.do(known, planned(spec_of(made.arm)))) == 1
    specs, parts, goings = made.executor.asked
    assert [spec.seed for spec in specs] == [2, 1]
    assert parts == [made.plan.splits[2], made.plan.splits[1]]
    assert goings[0] is None
    assert [run.data.tags["seed"] for run in made.stored()] == ["1"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("a full disk")])
def test_runs_under_way_are_ended_whatever_is_raised(logged, error):
    """Two that train together: the first is whole, the second was begun."""
    made = logged(final, error)
    with pytest.raises(type(error)):
        made.do(planned(spec_of(made.arm)), planned(spec_of(made.arm, 2), "seed 2/3"))
    first, second = made.stored()
    assert (first.info.status, second.info.status) == ("FINISHED", "KILLED")
    assert "bench.status" not in second.data.tags
    assert made.executor.forgotten == [spec_of(made.arm)], "the other goes on from its checkpoint"
