"""What executes a run: each way that one can end, and what it keeps of it."""

import gc
import weakref

import numpy as np
import pytest
import torch

from bench.core.runs import Purpose, RunSpec, Status
from bench.experiment.plan import plan
from bench.experiment.run_executor import RunExecutor
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.training.refit import refit
from bench.training.setup import Compute, TrainingSetup
from bench.training.targets.classification import Classes


class Executed:
    """An executor of the tiny study, and what is run."""

    def __init__(self, tiny, metric="accuracy", settings=()):
        usual = ["training.batch_size=8", f"metric={metric}"]
        self.plan = plan(load(tiny, [*usual, *(settings or ["training.epochs=2"])]))
        self.setup = TrainingSetup(self.plan.study, self.plan.dataset, self.plan.origin, Compute("cpu", 1))
        self.executor = RunExecutor(self.setup)

    def spec(self, strategy="full", seed=1, purpose=Purpose.FINAL):
        arm = next(arm for arm in self.plan.arms if arm.strategy == strategy)
        return RunSpec(arm, STRATEGIES[strategy].defaults, seed, purpose)

    def run(self, *arguments, callback=lambda _row: True, **options):
        spec = self.spec(*arguments, **options)
        return self.executor.run(spec, self.plan.splits[spec.seed], callback)


@pytest.fixture
def tiny_run(tiny):
    return Executed(tiny)


def test_a_final_run_reads_test_and_keeps_weights_and_predictions(tiny_run):
    executed = tiny_run.run()
    result = executed.result
    assert result.status is Status.DONE
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= set(result.metrics)
    assert len(result.curve) == 2
    assert executed.weights
    assert executed.predictions is not None
    assert executed.traceback == ""


def test_probabilities_are_calibrated_by_validation_alone(tiny_run):
    """The temperature is the best for val; what is kept of test, and its scores, are by the same one."""
    executed = tiny_run.run("feature_extractor")
    metrics, columns = executed.result.metrics, executed.predictions.columns
    scores, classes = executed.predictions.scores.values.astype(float), tiny_run.plan.dataset.classes
    logs = torch.from_numpy(scores / metrics["val/temperature"]).log_softmax(1).numpy()
    truth = [classes.index(name) for name in columns["target"]]
    assert columns["log_loss"] == pytest.approx(-logs[np.arange(len(truth)), truth], abs=1e-5)
    assert columns["calibrated_probability"] == pytest.approx(np.exp(logs.max(1)), abs=1e-5)
    assert columns["probability"] == pytest.approx(np.exp(scores.max(1)), abs=1e-5), "as they were"
    assert metrics["test/nll"] == pytest.approx(np.mean(columns["log_loss"]), abs=1e-5)


@pytest.mark.parametrize("metric", ["nll", "calibration_error"])
def test_a_metric_of_probabilities_chooses_like_any_other(tiny, metric):
    executor = Executed(tiny, metric=metric)
    result = executor.run("feature_extractor").result
    rows = [row[f"val/{metric}"] for row in result.curve]
    assert result.metrics[f"val/{metric}"] == min(rows)
    if metric == "nll":  # a temperature makes nothing worse where it is fitted
        assert all(row["val/nll"] <= row["val/loss"] + 1e-6 for row in result.curve)


@pytest.mark.parametrize("strategy", ["feature_extractor", "full", "linear_probe", "lp_ft"])
def test_refitted_on_train_and_val_it_takes_the_steps_that_were_best(tiny, strategy):
    """What is said of val is of the choice; the weights are those of as many steps on all labels."""
    settings = [f"strategies={strategy}", "training.steps=9", "training.evaluations=4"]
    plain, refitted = (
        Executed(tiny, settings=settings),
        Executed(tiny, settings=[*settings, "training.refit=true"]),
    )
    before, after = plain.run(strategy), refitted.run(strategy)
    chosen, parts = before.result, plain.plan.splits[1]
    assert after.result.curve == chosen.curve
    assert after.result.best_step == chosen.best_step
    of_val = {name: value for name, value in chosen.metrics.items() if name.startswith(("val/", "train/"))}
    assert of_val.items() <= after.result.metrics.items()
    assert after.result.spec.arm.key != chosen.spec.arm.key
    both = np.concatenate([parts.train, parts.val])
    expected = refit(plain.setup, plain.spec(strategy), both, chosen.best_step)
    assert expected.best.keys() == after.weights.keys() == before.weights.keys()
    assert all(torch.equal(expected.best[name], after.weights[name]) for name in expected.best)
    assert any(not torch.equal(before.weights[name], after.weights[name]) for name in expected.best)


def test_a_trial_never_sees_test(tiny_run):
    executed = tiny_run.run(seed=1, purpose=Purpose.TRIAL)
    assert executed.result.status is Status.DONE
    assert not [name for name in executed.result.metrics if name.startswith("test/")]
    assert executed.predictions is None


def test_a_final_run_is_the_training_of_its_best_trial(tiny_run, monkeypatch):
    """It is not trained again where the trial is at hand, and where it is not, it is the same to the bit."""
    anew = tiny_run.run()
    trained = []
    problem = tiny_run.setup.problem
    monkeypatch.setattr(tiny_run.setup, "problem", lambda *of: trained.append(of) or problem(*of))
    tiny_run.run(seed=2, purpose=Purpose.TRIAL)
    tiny_run.run(purpose=Purpose.TRIAL)
    judged = []
    final = tiny_run.run(callback=lambda row: judged.append(row) or True)
    assert [spec.seed for spec, _ in trained] == [2, 1]
    assert judged == list(final.result.curve)
    assert final.result.metrics == anew.result.metrics
    assert all(torch.equal(tensor, final.weights[name]) for name, tensor in anew.weights.items())
    tiny_run.run(seed=2)
    assert len(trained) == 3, "another seed's trial was not kept"


def test_a_trial_that_is_told_to_stop_is_pruned(tiny_run):
    asked = []
    executed = tiny_run.run(seed=1, purpose=Purpose.TRIAL, callback=lambda row: bool(asked.append(row)))
    assert executed.result.status is Status.PRUNED
    assert len(asked) == len(executed.result.curve) == 1


def test_a_failure_is_a_result_that_says_where(tiny_run, monkeypatch):
    def refuse(*_arguments):
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(Classes, "loss", refuse)
    executed = tiny_run.run()
    assert (executed.result.status, executed.result.error) == (Status.FAILED, "no such kernel")
    assert not executed.result.diverged
    assert "in refuse" in executed.traceback
    assert executed.traceback.rstrip().endswith("second line")


def test_a_loss_that_is_not_finite_is_a_divergence(tiny_run, monkeypatch):
    loss = Classes.loss
    monkeypatch.setattr(Classes, "loss", lambda *arguments: loss(*arguments) * float("nan"))
    executed = tiny_run.run()
    assert executed.result.status is Status.FAILED
    assert executed.result.diverged


def test_where_memory_is_full_the_model_is_released_before_the_next_is_built(tiny_run, monkeypatch, caplog):
    """The batch of 8 finds room in four micro-batches: three models are built, one after the other."""
    loss, problem, models = Classes.loss, tiny_run.setup.problem, []

    def loss_of_three(self, logits, *others):
        if len(logits) > 3:
            raise torch.OutOfMemoryError("no room for more than three images")
        return loss(self, logits, *others)

    def noted(*arguments):
        gc.collect()
        alive = [model for model in models if model() is not None]
        assert not alive, "the model before is still there"
        built = problem(*arguments)
        models.append(weakref.ref(built.model))
        return built

    monkeypatch.setattr(Classes, "loss", loss_of_three)
    monkeypatch.setattr(tiny_run.setup, "problem", noted)
    executed = tiny_run.run(seed=1, purpose=Purpose.TRIAL)
    assert executed.result.status is Status.DONE
    assert len(models) == 3
    assert executed.result.environment["batch"].startswith("each batch in 4 ")
    assert "memory is full" in caplog.text


def test_heads_that_can_not_be_trained_together_are_trained_one_by_one(tiny_run, monkeypatch, caplog):
    specs = [tiny_run.spec("feature_extractor", seed) for seed in (1, 2)]
    splits, always = [tiny_run.plan.splits[seed] for seed in (1, 2)], lambda _row: True
    together = [e.result for e in tiny_run.executor.run_together(specs, splits, [always, always])]

    def refuse(_problems):
        raise RuntimeError("one is ill")

    monkeypatch.setattr("bench.experiment.run_executor.train_together", refuse)
    alone = [e.result for e in tiny_run.executor.run_together(specs, splits, [always, always])]
    assert [r.status for r in together] == [r.status for r in alone] == [Status.DONE, Status.DONE]
    assert "2 runs can't be trained together (one is ill); one by one" in caplog.text
    for one, other in zip(together, alone, strict=True):
        assert one.metrics["val/loss"] == pytest.approx(other.metrics["val/loss"], rel=1e-4)


def test_a_known_run_takes_part_and_gives_nothing(tiny_run):
    specs = [tiny_run.spec("feature_extractor", seed) for seed in (1, 2)]
    splits, always = [tiny_run.plan.splits[seed] for seed in (1, 2)], lambda _row: True
    both = [e.result for e in tiny_run.executor.run_together(specs, splits, [always, always])]
    (second,) = tiny_run.executor.run_together(specs, splits, [None, always])
    assert second.result.metrics["test/accuracy"] == both[1].metrics["test/accuracy"]
    assert second.result.curve[-1]["val/loss"] == both[1].curve[-1]["val/loss"]
