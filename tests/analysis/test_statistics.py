"""Statistics of metrics: values by other libraries, intervals by simulation, what is unknown raises."""

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from bench.analysis.comparisons import compare_all
from bench.analysis.predictions.base import Predictions, read
from bench.analysis.predictions.classification import one_class_counts
from bench.analysis.rankings import rankings
from bench.analysis.statistics import measured, value
from bench.analysis.summary import summarise
from bench.analysis.variance import Sample
from bench.analysis.verdict import verdict
from bench.study.metrics import METRICS, Certainty, Counts, Metric, Ratio
from tests.support.synthetic import crossed_of, make_evidence, make_study


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
    logs = special.log_softmax(scores, axis=2)
    certainty = Certainty(-logs[:, np.arange(len(labels)), labels], np.exp(logs.max(axis=2)))
    return Predictions(
        rows,
        correct,
        labels.astype(str),
        0,
        count=lambda: counts,
        find_certainty=lambda: certainty,
        scores=scores,
    )


def coverage(name, studies=120, of=20_000, truth=None):
    """The share of studies whose interval holds the value of a set that is as good as infinite."""
    metric = METRICS[name]
    truth = truth if truth is not None else value(metric, predictions_of(*drawn(images=of, runs=1, seed=999)))
    inside = 0
    for number in range(studies):
        found = measured(metric, predictions_of(*drawn(images=60, runs=4, seed=number)))
        estimate = found.estimate(range(4))
        inside += estimate.low <= truth <= estimate.high
    return inside / studies


def test_macro_f1_is_that_of_scikit_learn():
    labels, scores = drawn()
    found = measured(METRICS["macro_f1"], predictions_of(labels, scores))
    by_hand = [f1_score(labels, run.argmax(1), average="macro") for run in scores]
    assert found.values.tolist() == pytest.approx(by_hand)
    estimate = found.estimate([0, 1, 2])
    assert estimate.low < estimate.value < estimate.high


def test_intervals_of_macro_f1_cover_it():
    assert coverage("macro_f1") > 0.88


def test_the_log_loss_is_that_of_scikit_learn():
    labels, scores = drawn()
    found = measured(METRICS["nll"], predictions_of(labels, scores))
    assert found.values.tolist() == pytest.approx(
        [log_loss(labels, special.softmax(run, axis=1)) for run in scores]
    )
    estimate = found.estimate([0, 1, 2])
    assert estimate.low < estimate.value < estimate.high


def test_intervals_of_the_log_loss_cover_it():
    assert coverage("nll") > 0.88


def calibration_error_by_hand(labels, scores, bins=15):
    """Guo et al. 2017, equation 3, bin by bin."""
    chances = special.softmax(scores, axis=1)
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    error = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def test_the_calibration_error_is_that_of_guo():
    labels, scores = drawn(signal=0.5)
    found = measured(METRICS["calibration_error"], predictions_of(labels, scores))
    assert found.values.tolist() == pytest.approx([calibration_error_by_hand(labels, run) for run in scores])
    assert found._influence.sum(axis=1) == pytest.approx(np.zeros(3))


def test_intervals_of_the_calibration_error_cover_its_mean():
    """Over test sets of this size: of few images it is larger, as chance alone gives a bin some error."""
    name = "calibration_error"
    sets = [predictions_of(*drawn(images=60, runs=4, seed=10_000 + number)) for number in range(300)]
    mean = np.mean([measured(METRICS[name], one).values.mean() for one in sets])
    assert coverage(name, truth=mean) > 0.88


def test_without_probabilities_there_is_no_log_loss():
    predictions = dataclasses.replace(predictions_of(*drawn()), find_certainty=None)
    with pytest.raises(ValueError, match="say nothing of probabilities"):
        measured(METRICS["nll"], predictions)


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_are_those_of_scikit_learn(ties):
    labels, scores = drawn()
    scores = scores.round() if ties else scores
    predictions = predictions_of(labels, scores)
    truth = np.eye(4)[labels]
    for name, theirs in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        found = measured(METRICS[name], predictions)
        assert found.values.tolist() == pytest.approx([theirs(truth, run, average="macro") for run in scores])
        estimate = found.estimate([0, 1, 2])
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", ["macro_f1", "auroc", "average_precision"])
def test_what_an_image_adds_is_how_the_metric_changes_with_its_weight(name, ties):
    """The derivative of scikit-learn's metric by the weight of each image."""
    labels, scores = drawn(classes=3, images=40, runs=2)
    scores = scores.round(1) if ties else scores
    truth = np.eye(3)[labels]

    def theirs(weights, run):
        if name == "macro_f1":
            return f1_score(labels, run.argmax(1), average="macro", sample_weight=weights)
        of = roc_auc_score if name == "auroc" else average_precision_score
        return of(truth, run, average="macro", sample_weight=weights)

    predictions = predictions_of(labels, scores)
    found = measured(METRICS[name], predictions)._influence
    step = 1e-4
    for row, run in enumerate(scores):
        changes = [theirs(1 + step * e, run) - theirs(1 - step * e, run) for e in np.eye(40)]
        assert found[row] == pytest.approx(np.array(changes) / (2 * step), abs=1e-6)
        assert found[row].sum() == pytest.approx(0, abs=1e-8)


def test_the_covariance_of_two_auroc_is_that_of_delong():
    """DeLong et al. 1988: the covariances of the placement values of either class, by their numbers."""
    draw = np.random.default_rng(3)
    shows = np.repeat([1.0, 0.0], [40, 60])
    scores = shows[:, None] + draw.normal(size=(100, 1)) + draw.normal(size=(100, 2))
    below = (scores[:40, None] > scores[None, 40:]).astype(float)  # (positives, negatives, scores)
    expected = np.cov(below.mean(axis=1).T) / 40 + np.cov(below.mean(axis=0).T) / 60
    values, influence = rankings(scores.T[:, :, None], shows[:, None], METRICS["auroc"].statistic.credit)
    assert values == pytest.approx(below.mean(axis=(0, 1)))
    by_class = Sample(np.arange(100), (shows == 0).astype(int))
    sums = by_class.by_group(influence)
    assert sums @ sums.T == pytest.approx(expected)


def test_a_class_that_nothing_can_be_said_on_is_left_out_of_rankings():
    labels, scores = drawn(classes=3, images=30)
    truth = np.eye(3)[labels]
    more = np.concatenate([truth, np.zeros((30, 1)), np.ones((30, 1))], axis=1)
    wider = np.concatenate([scores, scores[:, :, :2]], axis=2)
    credit = METRICS["auroc"].statistic.credit
    for ours, theirs in zip(rankings(wider, more, credit), rankings(scores, truth, credit), strict=True):
        assert ours == pytest.approx(theirs)
    with pytest.raises(ValueError, match="there is nothing to rank"):
        rankings(scores[:, :, :1], np.ones((30, 1)), credit)


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation"])
def test_the_group_of_an_image_is_read_for_every_task(task):
    made = make_evidence(make_study(task=task, strategies=["full"], seeds=2), images=6)
    groups = {f"{n:04d}.png": name for n, name in enumerate(["a", "b", "a", "", "b", np.nan])}
    rows = made.predictions.assign(group=made.predictions["image"].map(groups))
    if task != "classification":
        rows = rows.assign(truth=1.0, predicted=1.0, intersection=1.0)
    runs = made.runs.assign(**{f"test_{made.study.metric}": 1.0})
    found = read(dataclasses.replace(made, runs=runs, predictions=rows))
    assert found.group_names == ("a", "b", "a", "", "b", "")
    alike = found.groups[:, None] == found.groups
    assert alike.sum() == 2 * 4 + 2
    assert alike[0, 2]
    assert alike[1, 4]


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_intervals_of_rankings_cover_them(name):
    assert coverage(name, studies=60, of=4000) > 0.87


class TestRatios:
    def crossed(self, above, below, shown):
        """Ratios of sums of shape (R, N, K); `shown`: what the truth has of each, shape (N, K)."""
        metric = Metric("ratio", "r", "", (), Ratio(lambda n: (n.intersection, n.predicted)))
        rows = {("full", row): row for row in range(len(above))}
        counts = Counts(shown, below, above)
        right = np.zeros(above.shape[:2])
        return measured(metric, Predictions(rows, right, np.zeros(len(shown), str), 0, count=lambda: counts))

    def test_with_one_ratio_of_ones_it_is_the_share_of_right_predictions(self):
        correct = (np.random.default_rng(0).random((3, 80)) < 0.7).astype(float)
        ones = np.ones((3, 80, 1))
        ratios, plain = self.crossed(correct[..., None], ones, ones[0]), crossed_of(correct)
        assert ratios.values == pytest.approx(plain.values)
        assert ratios._influence == pytest.approx(plain._influence)
        assert ratios.difference([0], [1], 0.02).p == pytest.approx(plain.difference([0], [1], 0.02).p)

    def test_its_error_is_that_of_the_delta_method(self):
        """Cochran 1977, "Sampling techniques", equation 2.39: the variance of a ratio of means."""
        rng = np.random.default_rng(1)
        below = rng.uniform(50, 150, (1, 400, 1))
        above = below * rng.beta(4, 2, (1, 400, 1))
        crossed = self.crossed(above, below, below[0])
        ratio = above.sum() / below.sum()
        residual = (above - ratio * below)[0, :, 0]
        expected = (residual**2).sum() / (400 * 399) / below.mean() ** 2
        assert crossed.mean([0]) == pytest.approx(ratio)
        assert crossed._covariance[0, 0] == pytest.approx(expected)

    def test_a_class_that_the_truth_does_not_show_is_left_out(self):
        above, below, shown = np.ones((2, 20, 2)), 2 * np.ones((2, 20, 2)), np.ones((20, 2))
        shown[:, 1], above[:, :, 1] = 0, 0
        assert self.crossed(above, below, shown).values.tolist() == [0.5, 0.5]

    def test_a_class_that_is_never_predicted_is_zero(self):
        nothing = np.zeros((1, 20, 1))
        crossed = self.crossed(nothing, nothing, np.ones((20, 1)))
        assert (crossed.values.tolist(), np.abs(crossed._influence).max()) == ([0.0], 0.0)

    def test_without_variance_there_is_no_interval_but_the_value(self):
        above, below = np.zeros((2, 30, 1)), np.ones((2, 30, 1))
        crossed = self.crossed(above, below, below[0])
        found, estimate = crossed.difference([0], [1], 0.02), crossed.estimate([0])
        assert (found.low, found.value, found.high, found.p) == (0, 0, 0, 1)
        assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)
        (pair,) = compare_all({"a": {1: 0}, "b": {1: 1}}, crossed, 0.02)
        assert pair.critical_difference is None


def test_without_scores_a_ranking_is_refused():
    predictions = dataclasses.replace(predictions_of(*drawn()), scores=None)
    with pytest.raises(ValueError, match="are not stored"):
        measured(METRICS["auroc"], predictions)


def test_an_unknown_statistic_raises():
    unknown = Metric("new", "new", "one that nobody knows", ("classification",), statistic="median")
    with pytest.raises(ValueError, match="how sure a str is, is unknown: new is made of it"):
        measured(unknown, predictions_of(*drawn(images=20)))


def test_lower_can_be_better(monkeypatch):
    """An error rate ranks strategies as the accuracy does, and the other way round."""
    evidence = make_evidence(make_study(metric="accuracy"))
    right = summarise(evidence)
    monkeypatch.setitem(
        METRICS._records, "accuracy", dataclasses.replace(METRICS["accuracy"], direction="lower")
    )
    wrong = summarise(evidence)
    assert right.best != wrong.best == "scratch"
    worse = {c.strategy for c in wrong.comparisons if c.relation == "worse"}
    assert worse == {r.strategy for r in wrong.results if r.test.value > wrong.result("scratch").test.high}
    assert not [c.words for c in wrong.comparisons if c.relation == "worse" and "\N{MINUS SIGN}" in c.words]


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_a_report_says_the_metric_that_was_asked_for(name):
    evidence = make_evidence(make_study(metric=name))
    for part in ("val", "test"):
        evidence.runs[f"{part}_{name}"] = evidence.runs[f"{part}_accuracy"]
    summary = summarise(evidence)
    predictions = read(evidence)
    rows = [row for (strategy, _), row in predictions.rows.items() if strategy == "full"]
    crossed = measured(METRICS[name], predictions)
    expected = crossed.mean(rows)
    assert summary.result("full").test.value == pytest.approx(expected)
    assert METRICS[name].label in summary.verdict
    assert verdict(summary.results, summary.comparisons, evidence.study, crossed) == summary.verdict


@pytest.mark.parametrize("name", ["nll", "calibration_error"])
def test_a_report_on_probabilities_ranks_by_the_lowest_and_says_the_temperatures(name):
    evidence = make_evidence(make_study(metric=name))
    right = evidence.predictions["target"] == evidence.predictions["prediction"]
    table = evidence.predictions.assign(
        calibrated_probability=0.95, log_loss=-np.log(np.where(right, 0.95, 0.05))
    )
    runs = evidence.runs.assign(val_temperature=1.5)
    for part in ("val", "test"):
        runs[f"{part}_{name}"] = 1 - runs[f"{part}_accuracy"]
    summary = summarise(dataclasses.replace(evidence, runs=runs, predictions=table))
    shares = right.groupby(evidence.predictions["strategy"]).mean()
    lowest = {
        "nll": -shares * np.log(0.95) - (1 - shares) * np.log(0.05),
        "calibration_error": (shares - 0.95).abs(),
    }[name]
    for strategy, value_of in lowest.items():
        assert summary.result(strategy).test.value == pytest.approx(value_of)
    assert summary.result("scratch").place == "worse"
    assert METRICS[name].label in summary.verdict
    (told,) = [note for note in summary.notes if note.startswith("Temperatures that calibrate")]
    assert "scratch 1.50" in told
    assert any("its size means little" in note for note in summary.notes) == (name == "calibration_error")
