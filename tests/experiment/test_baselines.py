"""Baselines are runs of their own: found again, in the results, in no comparison."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier

from bench.analysis.summary import Summary, summarise
from bench.core.errors import InputError
from bench.core.runs import Purpose
from bench.experiment.events import Message, RunStarted
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.study_runner import StudyRunner
from bench.report import study_report, tables
from bench.study.baselines import BASELINES
from bench.study.loading import load
from bench.training import baselines
from bench.training.setup import Compute, TrainingSetup

ALL = tuple(BASELINES)
SETTINGS = ["strategies=[linear_probe]", "training.epochs=2", "tuning.trials=2", "seeds=2"]


class Watched(Progress):
    """Notes what happens."""

    def __init__(self):
        super().__init__("accuracy")
        self.events = []

    def on_event(self, event):
        self.events.append(event)
        super().on_event(event)

    @property
    def begun(self):
        return [event for event in self.events if isinstance(event, RunStarted)]

    @property
    def of_baselines(self):
        lines = [event.text for event in self.events if isinstance(event, Message)]
        return [line for line in lines if line.startswith(ALL)]


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, new_store):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    uri = new_store(tmp_path / "runs.db")

    def run_study(*settings, **options):
        watched = Watched()
        chosen = Options(**{"device": "cpu", "jobs": 1, "threads": 1, "tracking_uri": uri, **options})
        runner = StudyRunner(plan(load(tiny, [*SETTINGS, *settings])), chosen, watched)
        runner.run()
        return runner, watched

    return run_study


def test_they_are_done_once_and_are_rows_of_the_report_in_no_comparison(run, tmp_path):
    without, _ = run()
    plain = summarise(without.evidence())
    runner, watched = run(f"baselines=[{','.join(ALL)}]")
    assert len(watched.of_baselines) == 2 * len(ALL)
    assert not watched.begun, "the strategies' runs are found: baselines are in no key of theirs"
    assert runner.plan.key == without.plan.key
    again, idle = run(f"baselines=[{','.join(ALL)}]")
    assert not idle.of_baselines

    evidence = again.evidence()
    assert evidence.fingerprint == again.fingerprint != without.fingerprint
    assert set(evidence.runs["strategy"]) == {"linear_probe"}
    summary = summarise(evidence)
    assert dataclasses.replace(summary, baselines=()) == plain, "nothing follows from them"
    assert [result.strategy for result in summary.baselines] == sorted(ALL)
    for result in summary.baselines:
        assert (result.done, result.place) == (2, "baseline")
        assert result.test.low <= result.test.value <= result.test.high
        assert result.test.value == pytest.approx(result.test_mean)
    assert Summary.from_json(json.loads(json.dumps(summary.as_json()))) == summary
    majority = next(result for result in summary.baselines if result.strategy == "majority")
    assert majority.test.value == pytest.approx(1 / 3, abs=0.1)

    _, rows = tables.table(summary)
    assert [(row[0], row[-1]) for row in rows[1:]] == [(name, "baseline") for name in sorted(ALL)]
    study_report.write(evidence, tmp_path / "report")
    assert "Baselines are in no comparison" in (tmp_path / "report/report.md").read_text()
    written = pd.read_csv(tmp_path / "report/tables/results.csv")
    assert written["strategy"].tolist() == ["linear_probe", *sorted(ALL)]


def test_their_runs_are_told_from_those_of_strategies_by_a_tag(run):
    runner, _ = run("baselines=[majority]")
    (arm,) = runner.plan.baselines
    found = runner.store.reader.runs_of_arm(arm.key, Purpose.FINAL)
    assert {run.tags["baseline"] for run in found} == {"yes"}
    assert {run.tags["strategy"] for run in found} == {"majority"}
    strategies = runner.store.reader.runs_of_arm(runner.plan.arms[0].key, Purpose.FINAL)
    assert not [run for run in strategies if "baseline" in run.tags]


def test_where_seeds_are_added_they_have_the_first_ones(run):
    runner, _ = run(
        "strategies=[linear_probe,feature_extractor]", "seeds={min: 2, max: 3}", "baselines=[majority]"
    )
    evidence = runner.evidence()
    (result,) = summarise(evidence).baselines
    assert (result.done, result.missing) == (2, 0)
    assert evidence.fingerprint == runner.fingerprint


def test_what_is_forgotten_is_done_again(run):
    run("baselines=[majority]")
    _, watched = run("baselines=[majority]", fresh=True)
    assert len(watched.of_baselines) == 2


def test_neighbours_compare_pooled_features_whatever_head_the_study_has(run):
    """And strategies may be trained in other processes: the same results."""
    found = []
    for settings, jobs in ((["head.kind=concat_pool"], 2), ([], 1)):
        about = ["strategies=[full]", "tuning.trials=1", "baselines=[nearest_neighbours]", *settings]
        runner, _ = run(*about, jobs=jobs, fresh=True)
        (result,) = summarise(runner.evidence()).baselines
        assert result.done == 2
        found.append(result.test)
    assert found[0] == found[1]


def test_one_that_fails_is_a_result_and_is_tried_again(run, monkeypatch):
    def refuse(*_arguments):
        raise ValueError("no colours")

    with monkeypatch.context() as patched:
        patched.setattr(baselines, "colours", refuse)
        runner, _ = run("baselines=[majority,colour_histogram]")
    results = {result.strategy: result for result in summarise(runner.evidence()).baselines}
    assert (results["colour_histogram"].failed, results["majority"].done) == (2, 2)
    assert results["colour_histogram"].errors == ("no colours",)
    _, watched = run("baselines=[majority,colour_histogram]")
    assert len(watched.of_baselines) == 2


class TestValues:
    @pytest.fixture
    def made(self, tiny):
        laid_out = plan(load(tiny, SETTINGS))
        return TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu", 1)), laid_out

    def test_they_are_those_of_scikit_learn(self, made):
        setup, laid_out = made
        parts, dataset = laid_out.splits[1], laid_out.dataset
        labels = dataset.labels
        prior = DummyClassifier(strategy="prior").fit(np.zeros((len(parts.train), 1)), labels[parts.train])
        found = baselines.fit("majority", setup, parts, 1).predict(parts.test).exp()
        assert found[0].tolist() == pytest.approx(prior.class_prior_.tolist())
        trees = ExtraTreesClassifier(baselines.TREES, random_state=1)
        trees.fit(baselines.colours(dataset, parts.train), labels[parts.train])
        expected = trees.predict(baselines.colours(dataset, parts.test))
        found = baselines.fit("colour_histogram", setup, parts, 1).predict(parts.test)
        assert found.argmax(1).tolist() == expected.tolist()

    def test_as_many_neighbours_are_asked_as_are_best_on_val(self, made):
        setup, laid_out = made
        parts = laid_out.splits[1]
        chosen = baselines.fit("nearest_neighbours", setup, parts, 1)
        scores = {}
        for count in baselines.NEIGHBOURS:
            own = dataclasses.replace(chosen, classifier=_with(chosen, count, setup, parts))
            scores[count] = setup.targets.score(own.predict(parts.val), parts.val)["accuracy"]
        assert scores[chosen.classifier.n_neighbors] == max(scores.values())

    def test_a_histogram_counts_every_pixel_once(self, made):
        _, laid_out = made
        found = baselines.colours(laid_out.dataset, np.arange(3))
        assert found.shape == (3, 3 * baselines.BINS + baselines.CELLS**3)
        assert found.sum(axis=1) == pytest.approx([4] * 3)


def _with(chosen, count, setup, parts):
    """The same classifier with another number of neighbours."""
    from sklearn.base import clone

    again = clone(chosen.classifier).set_params(n_neighbors=count)
    return again.fit(chosen.sight.of(parts.train), setup.dataset.labels[parts.train])


def test_what_there_is_no_baseline_for_is_one_line(tiny):
    with pytest.raises(InputError, match="unknown baseline 'most'"):
        load(tiny, ["baselines=[most]"])
    with pytest.raises(InputError, match="baselines are for one class an image, not for segmentation"):
        load("segmentation_packaged", ["baselines=majority"])
