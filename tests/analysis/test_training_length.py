"""Whether strategies had steps enough, from curves made for it."""

import pandas as pd
import pytest

from bench.analysis.summary import summarise
from bench.analysis.training_length import rises, undertrained
from bench.study.schema import with_changes
from tests.support.synthetic import make_evidence


def with_curves(schedule="plateau", **values):
    """Evidence whose strategies have these val accuracies at the peak rate."""
    evidence = make_evidence()
    study = with_changes(
        evidence.study, training=with_changes(evidence.study.training, schedule=schedule, patience=3)
    )
    rows = [
        {"strategy": strategy, "seed": seed, "step": 10 * n, "learning_rate": rate, "val_accuracy": value}
        for strategy, scores in values.items()
        for seed in (1, 2, 3)
        for n, (rate, value) in enumerate([(1e-4, 0.1), *((1e-3, v) for v in scores), (1e-5, 0.99)])
    ]
    return type(evidence)(
        study=study,
        runs=evidence.runs,
        trials=evidence.trials,
        curves=pd.DataFrame(rows),
        predictions=evidence.predictions,
    )


def test_what_still_rises_is_undertrained_and_a_plateau_is_not():
    evidence = with_curves(
        scratch=[0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        full=[0.5, 0.7, 0.8, 0.8, 0.79, 0.8],
        partial=[0.5, 0.70, 0.70, 0.69, 0.71, 0.70],
    )
    assert rises(evidence) == pytest.approx({"scratch": 0.3, "full": 0.0, "partial": 0.01})
    assert list(undertrained(evidence)) == ["scratch"]
    (note,) = (note for note in summarise(evidence).notes if note.startswith("Undertrained"))
    assert "second half of the steps of scratch (by 0.300)." in note


def test_under_a_rate_that_falls_all_the_time_a_curve_says_nothing():
    assert rises(with_curves("one_cycle", scratch=[0.2, 0.3, 0.4, 0.5])) == {}


def test_a_solved_head_has_no_curve_to_judge():
    evidence = with_curves(scratch=[0.2, 0.3, 0.4, 0.5])
    solved = evidence.curves.assign(learning_rate=0.0)
    assert rises(type(evidence)(**{**vars(evidence), "curves": solved})) == {}
