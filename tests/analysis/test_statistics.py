"""Statistics of metrics: values by other libraries, intervals by simulation, what is unknown raises."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from bench.analysis.predictions.base import Predictions, read
from bench.analysis.predictions.classification import one_class_counts
from bench.analysis.statistics import resampled, value
from bench.analysis.summary import summarise
from bench.analysis.verdict import verdict
from bench.study.metrics import METRICS, Metric
from tests.support.synthetic import make_evidence, make_study


def drawn(classes=4, images=200, runs=3, signal=1.5, seed=0):
    """Predictions of runs that are right more often than not: labels (N,), scores (R, N, K)."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images)
    scores = draw.normal(size=(runs, images, classes)) + signal * np.eye(classes)[labels]
    return labels, scores


def predictions_of(labels, scores):
    one_hot = np.eye(scores.shape[2])
    counts = one_class_counts(one_hot[labels], one_hot[scores.argmax(2)])
    correct = (scores.argmax(2) == labels).astype(float)
    rows = {("full", seed): seed for seed in range(len(scores))}
    return Predictions(rows, correct, labels.astype(str), 0, count=lambda: counts, scores=scores)


def coverage(name, studies=120, of=20_000):
    """The share of studies whose interval holds the value of a set that is as good as infinite."""
    metric = METRICS[name]
    truth = value(metric, predictions_of(*drawn(images=of, runs=1, seed=999)))
    inside = 0
    for number in range(studies):
        found = resampled(metric, predictions_of(*drawn(images=60, runs=4, seed=number)), draws=200)
        estimate = found.estimate(range(4))
        inside += estimate.low <= truth <= estimate.high
    return inside / studies


def test_macro_f1_is_that_of_scikit_learn():
    labels, scores = drawn()
    found = resampled(METRICS["macro_f1"], predictions_of(labels, scores), draws=300)
    by_hand = [f1_score(labels, run.argmax(1), average="macro") for run in scores]
    assert found.values.tolist() == pytest.approx(by_hand)
    estimate = found.estimate([0, 1, 2])
    assert estimate.low < estimate.value < estimate.high


def test_intervals_of_macro_f1_cover_it():
    assert coverage("macro_f1") > 0.88


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_are_those_of_scikit_learn(ties):
    labels, scores = drawn()
    scores = scores.round() if ties else scores
    predictions = predictions_of(labels, scores)
    truth = np.eye(4)[labels]
    for name, theirs in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        found = resampled(METRICS[name], predictions, draws=50)
        assert found.values.tolist() == pytest.approx([theirs(truth, run, average="macro") for run in scores])
        estimate = found.estimate([0, 1, 2])
        assert estimate.low < estimate.value < estimate.high


def test_a_resampled_ranking_is_that_of_the_images_drawn():
    """Weights count images: the metric under them is that of a set in which images are repeated."""
    labels, scores = drawn(classes=3, images=30, runs=1)
    times = np.random.default_rng(1).integers(0, 4, 30)
    for name, theirs in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        found = resampled(METRICS[name], predictions_of(labels, scores))._means(times[None] / times.sum())
        repeated = np.repeat(np.eye(3)[labels], times, 0), np.repeat(scores[0], times, 0)
        assert found[0, 0] == pytest.approx(theirs(*repeated, average="macro"))


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_intervals_of_rankings_cover_them(name):
    assert coverage(name, studies=60, of=4000) > 0.87


def test_without_scores_a_ranking_is_refused():
    predictions = dataclasses.replace(predictions_of(*drawn()), scores=None)
    with pytest.raises(ValueError, match="are not stored"):
        resampled(METRICS["auroc"], predictions)


def test_an_unknown_statistic_raises():
    unknown = Metric("new", "new", "one that nobody resamples", ("classification",), statistic="median")
    with pytest.raises(ValueError, match="how str is resampled is unknown, which new is made of"):
        resampled(unknown, predictions_of(*drawn(images=20)))


def test_lower_can_be_better(monkeypatch):
    """An error rate ranks strategies as the accuracy does, and the other way round."""
    evidence = make_evidence(make_study(metric="accuracy"))
    right = summarise(evidence, draws=200)
    monkeypatch.setitem(
        METRICS._records, "accuracy", dataclasses.replace(METRICS["accuracy"], direction="lower")
    )
    wrong = summarise(evidence, draws=200)
    assert right.best != wrong.best == "scratch"
    behind = {c.strategy for c in wrong.comparisons if c.place == "behind"}
    assert behind == {r.strategy for r in wrong.results if r.test.value > wrong.result("scratch").test.high}
    assert not [c.words for c in wrong.comparisons if c.place == "behind" and "\N{MINUS SIGN}" in c.words]


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_a_report_says_the_metric_that_was_asked_for(name):
    evidence = make_evidence(make_study(metric=name))
    for part in ("val", "test"):
        evidence.runs[f"{part}_{name}"] = evidence.runs[f"{part}_accuracy"]
    summary = summarise(evidence, draws=200)
    predictions = read(evidence)
    rows = [row for (strategy, _), row in predictions.rows.items() if strategy == "full"]
    expected = resampled(METRICS[name], predictions).mean(rows)
    assert summary.result("full").test.value == pytest.approx(expected)
    assert METRICS[name].label in summary.verdict
    assert verdict(summary.results, summary.comparisons, evidence.study, 120) == summary.verdict
