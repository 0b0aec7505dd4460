"""A study run in this process: the run store is its one truth, whatever becomes of BENCH_HOME."""

from pathlib import Path

import optuna
import pandas as pd
import pytest

from bench.analysis.summary import summarise
from bench.core.runs import Purpose, Status
from bench.experiment.events import RunEnded, RunStarted
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.stored_tunings import stored_tunings
from bench.experiment.study_runner import StudyRunner
from bench.export.stored_model import chosen as chosen_model
from bench.study.loading import load
from bench.tracking.frames import SECONDS
from bench.tracking.reader import GENERATION
from bench.training.targets.classification import Classes
from bench.tuning.dashboard import rebuild

SETTINGS = ["strategies=[full,linear_probe]", "training.epochs=2", "tuning.trials=3", "seeds=2"]
RUNS = 2 * 2 * (3 + 1)


class Watched(Progress):
    """Notes what happens, and presses Ctrl-C after some runs."""

    def __init__(self, stop_after=None):
        super().__init__("accuracy")
        self.events, self.stop_after = [], stop_after

    def on_event(self, event):
        self.events.append(event)
        if self.stop_after is not None and len(self.of(RunEnded)) == self.stop_after:
            self.stop_after = None
            raise KeyboardInterrupt

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, new_store):
    """Run the study with a home and a store, both by name."""

    def run_study(home, store, *settings, stop_after=None, **options):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / home))
        watched = Watched(stop_after)
        file = tmp_path / f"{store}.db"
        where = f"sqlite:///{file}" if file.exists() else new_store(file)
        options = Options(device="cpu", jobs=1, threads=1, tracking_uri=where, **options)
        runner = StudyRunner(plan(load(tiny, [*SETTINGS, *settings])), options, watched)
        if stop_after is None:
            runner.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                runner.run()
        return runner, watched

    return run_study


def frames(runner):
    evidence = runner.evidence()
    apart = ["mlflow_run_id", *SECONDS, "peak_memory_bytes"]
    return [frame.drop(columns=apart) for frame in (evidence.runs, evidence.trials)]


def assert_equal(one, other):
    for left, right in zip(frames(one), frames(other), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_with_another_home_a_finished_study_trains_nothing(run):
    first, watched = run("a", "store")
    assert len(watched.of(RunStarted)) == RUNS
    second, watched = run("b", "store")
    assert watched.of(RunStarted) == []
    assert_equal(first, second)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("done", [1, 4, 7])
def test_half_a_study_goes_on_from_another_home_with_the_same_numbers(run, done):
    undisturbed, _ = run("a", "whole")
    _, watched = run("b", "half", stop_after=done)
    begun = len(watched.of(RunEnded))
    resumed, watched = run("c", "half")
    assert len(watched.of(RunStarted)) <= RUNS - begun + 3  # heads that are trained together begin together
    assert_equal(undisturbed, resumed)


def test_where_lower_is_better_all_that_is_chosen_is_what_accuracy_chooses(run, error_rate):
    """Trials, the best of them, the best epoch, strategy and seed: in training, store, analysis, export."""
    chosen = []
    for name in ("accuracy", error_rate.name):
        runner, _ = run(name, name, f"metric={name}", "training.epochs=3")
        evidence = runner.evidence()
        ran = evidence.trials.filter(regex="^(strategy|trial|status|param_.*)$")
        restored = evidence.runs[["strategy", "seed", "val_loss", "test_accuracy"]]
        best = chosen_model(runner.store, runner.found).run
        named = (best.tags["strategy"], best.tags["seed"], summarise(evidence).best)
        chosen.append((ran, restored, named))
    (trials, runs, named), (by_error, same_runs, same_named) = chosen
    pd.testing.assert_frame_equal(trials, by_error, check_exact=True)
    pd.testing.assert_frame_equal(runs, same_runs, check_exact=True)
    assert named == same_named


def test_more_trials_are_those_of_as_many_at_once(run):
    run("a", "grown", "tuning.trials=2")
    grown, _ = run("a", "grown", "tuning.trials=4")
    at_once, _ = run("b", "at_once", "tuning.trials=4")
    assert_equal(grown, at_once)
    assert_every_tuning_is_found(grown)


def assert_every_tuning_is_found(runner):
    """Those of the study, and those of when it had two trials, as the tuner has them."""
    tunings = {tuning.name: tuning for tuning in stored_tunings(runner.options.tracking_uri)}
    names = [f"tiny/{strategy}/seed {seed}" for strategy in ("full", "linear_probe") for seed in (1, 2)]
    assert list(tunings) == [*names, *(f"{name} (2)" for name in names)]
    assert [len(tuning.trials) for tuning in tunings.values()] == [4] * 4 + [2] * 4
    storage = rebuild(tunings.values())
    tuners = {
        f"tiny/{strategy}/seed {seed}": tuner
        for strategy, state in runner.opened.states.items()
        for seed, tuner in state.tuners().items()
    }
    assert list(tuners) == names
    for name, tuner in tuners.items():
        shown = optuna.load_study(study_name=name, storage=storage)
        assert shown.best_value == tuner.result().best_score
        assert [trial.params for trial in shown.trials] == [tuner.finished[n].params for n in range(4)]
        assert all(len(trial.intermediate_values) >= 1 for trial in shown.trials)


def test_seeds_are_added_where_they_decide_and_found_again(run):
    """Interrupted before the first comparison or after it, the study comes to the same seeds and numbers."""
    many = ("seeds={min: 2, max: 5}", "smallest_effect=0.3", "tuning.trials=2")
    undisturbed, watched = run("a", "whole", *many)
    wanted = undisturbed.evidence().wanted
    assert set(wanted.values()) <= {2, 4, 5}
    assert max(wanted.values()) > 2, "the comparison is open after two seeds"
    assert len(watched.of(RunStarted)) == sum(3 * seeds for seeds in wanted.values())
    assert undisturbed.evidence().fingerprint == undisturbed.fingerprint
    _, watched = run("a", "whole", *many)
    assert watched.of(RunStarted) == []
    for number, done in enumerate((3, 13)):
        _, watched = run("b", f"half {number}", *many, stop_after=done)
        resumed, _ = run("c", f"half {number}", *many)
        assert_equal(undisturbed, resumed)


def test_what_is_forgotten_does_not_count_and_is_forgotten_in_the_store(run):
    first, _ = run("a", "store")
    fresh, watched = run("b", "store", fresh=True)
    assert len(watched.of(RunStarted)) == RUNS
    assert_equal(first, fresh)
    third, watched = run("c", "store")
    assert watched.of(RunStarted) == []
    assert _finals(third) == _finals(fresh)
    trials = third.store.reader.runs_of_arm(third.plan.arms[0].key, Purpose.TRIAL)
    assert [GENERATION in run.tags for run in trials] == [True] * 6 + [False] * 6


def _finals(runner):
    state = runner.opened.states["full"]
    return {seed: run.run_id for seed, run in state.done(state.tuners()).items()}


def test_what_failed_in_passing_is_done_again_by_the_next_command_only(run, monkeypatch):
    two_trials = ("strategies=[full]", "tuning.trials=2")  # both drawn at random: neither knows of the other
    loss, broken = Classes.loss, []

    def break_once(self, *arguments):
        if len(broken) < 1:
            broken.append(1)
            raise RuntimeError("the driver is gone")
        return loss(self, *arguments)

    monkeypatch.setattr(Classes, "loss", break_once)
    first, watched = run("a", "store", *two_trials)
    assert watched.of(RunEnded)[0].outcome == "failed: the driver is gone"
    (failed,) = [
        found
        for found in first.store.reader.runs_of_arm(first.plan.arms[0].key, Purpose.TRIAL)
        if found.status is Status.FAILED
    ]
    (text,) = first.store.reader.read_all([failed], "traceback.txt")
    assert b"in break_once" in text
    again, watched = run("b", "store", *two_trials)
    assert "seed 1, trial 1/2" in {event.run for event in watched.of(RunStarted)}
    undisturbed, _ = run("c", "other", *two_trials)
    assert_equal(again, undisturbed)


def test_a_traceback_is_shown_where_debugging_is_wished_for(run, monkeypatch, tmp_path):
    def refuse(*_arguments):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(Classes, "loss", refuse)
    monkeypatch.setenv("BENCH_DEBUG", "1")
    _, watched = run("a", "store", "strategies=[full]", "tuning.trials=1", "seeds=1")
    texts = [event.text for event in watched.events if hasattr(event, "text")]
    assert any("in refuse" in text for text in texts)
    assert Path(tmp_path / "a").is_dir()


def test_two_tunings_of_a_study_are_two_runs(run, tiny):
    keys = {
        plan(load(tiny, [*SETTINGS, more])).key for more in ("seeds=2", "tuning.seed=1", "tuning.pruner=none")
    }
    assert len(keys) == 3
