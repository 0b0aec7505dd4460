"""Optuna's dashboard on stored tunings: what it is given, and what it shows."""

import sys
from dataclasses import replace

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from bench.core.errors import InputError
from bench.core.runs import Status
from bench.strategies.registry import STRATEGIES
from bench.study.metrics import METRICS
from bench.tuning.dashboard import Tuning, check_installed, rebuild
from bench.tuning.trials import FinishedTrial
from tests.tuning.test_tuner import make_tuner, objective

STRATEGY = STRATEGIES["discriminative"]


def tuning_of(trials, metric=METRICS["accuracy"]):
    return Tuning("s/discriminative", STRATEGY, metric, trials)


def load(storage):
    return optuna.load_study(study_name="s/discriminative", storage=storage)


def test_a_rebuilt_study_is_what_the_tuner_knows():
    tuner = make_tuner(trials=8, pruner="successive_halving", epochs=8)
    best = tuner.run(objective([], epochs=8))
    trials = [tuner.finished[number] for number in range(8)]
    study = load(rebuild([tuning_of(trials)]))
    assert (study.best_params, study.best_value) == (best.best, best.best_score)
    assert study.direction is StudyDirection.MAXIMIZE
    assert study.metric_names == ["val accuracy"]
    states = {Status.DONE: TrialState.COMPLETE, Status.PRUNED: TrialState.PRUNED}
    assert Status.PRUNED in {trial.status for trial in trials}
    for shown, trial in zip(study.trials, trials, strict=True):
        assert shown.params == trial.params
        assert shown.state is states[trial.status]
        assert tuple(shown.intermediate_values.items()) == trial.reports
        assert shown.value == (trial.score if trial.status is Status.DONE else trial.reports[-1][1])


def test_a_failed_trial_and_a_gap_keep_their_numbers(error_rate):
    trials = [
        FinishedTrial(1, STRATEGY.defaults, Status.FAILED),
        FinishedTrial(3, STRATEGY.defaults, Status.DONE, 0.25),
        FinishedTrial(4, STRATEGY.defaults, Status.DONE, 0.5),
    ]
    study = load(rebuild([tuning_of(trials, error_rate)]))
    assert [trial.user_attrs["trial"] for trial in study.trials] == [2, 4, 5]
    assert study.trials[0].state is TrialState.FAIL
    assert study.best_value == 0.25, "lower is better"


@pytest.mark.parametrize("params", [{"learning_rate": 1e9}, {"gone": 1.0}])
def test_what_no_search_space_holds_is_left_out_and_named(params, caplog):
    trial = FinishedTrial(0, {**STRATEGY.defaults, **params}, Status.DONE, 0.5)
    other = replace(tuning_of([replace(trial, params=STRATEGY.defaults)]), name="other")
    storage = rebuild([tuning_of([trial]), other])
    assert [study.study_name for study in storage.get_all_studies()] == ["other"]
    assert "s/discriminative is left out: its search space has changed since" in caplog.text


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(InputError, match=r"--tuning: .* not installed; pip install .*\[dashboard\]"):
        check_installed()
