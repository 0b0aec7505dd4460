"""A study's evidence from the store alone: finished, unfinished, failed, changed since, or never recorded."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.analysis.summary import summarise
from bench.core.errors import InputError
from bench.core.runs import (
    Arm,
    Purpose,
    RunResult,
    RunSpec,
    Status,
)
from bench.data.dataset import UNASSIGNED, Dataset, Split
from bench.experiment.plan import Plan
from bench.strategies.registry import STRATEGIES
from bench.study.loading import as_yaml, parse
from bench.study_record import facts, provenance, read, write
from bench.tracking.store import open_store
from tests.support.synthetic import make_study
from tests.support.tracking_contract import done

NAMES = ("a/1.png", "../b 2.png", "c.png", "d.png", "e.png", "f.png")


def make_plan(**changes):
    study = make_study(strategies=["scratch", "full"], tuning={"trials": 2}, seeds=2, **changes)
    images = np.random.default_rng(0).integers(0, 256, (6, 80, 80, 3), dtype=np.uint8)
    images[5] = images[0]
    dataset = Dataset(
        "toy",
        ("ant", "bee"),
        images,
        np.arange(6) % 2,
        np.full(6, UNASSIGNED),
        NAMES,
        "d" * 64,
        licence="CC0",
    )
    split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4, 5]))
    origin = SimpleNamespace(text="packaged", identity="w" * 64)
    arms = tuple(Arm(study.name, name, {"study": study.model_dump(mode="json")}) for name in study.strategies)
    return Plan(study, dataset, origin, dict.fromkeys(range(3), split), arms)


def log(store, arm_run, spec, result=None, folder=None, **tags):
    """Write a run to the store as the runner does."""
    files = {}
    if folder and spec.purpose is Purpose.FINAL:
        rows = {"image": NAMES[3:], "target": ["bee", "ant", "bee"], "prediction": ["bee", "bee", "bee"]}
        files["predictions.csv"] = folder / "p.csv"
        pd.DataFrame(rows).to_csv(folder / "p.csv", index=False)
    live = store.start(spec, arm_run, "x", {}, tags)
    live.finish(result or done(spec), files)
    return live.run_id


@pytest.fixture
def store(tmp_path, new_store):
    return open_store(new_store(tmp_path / "mlflow.db"), "bench/small_similar", create=True)


def tuned(store, plan, arm, accuracies):
    """Open an arm with trials of these accuracies for each seed: 0.1 and their number is the rate of each."""
    study_run = store.open_study(plan.study.name, plan.key, {}, {})
    arm_run = store.open_arm(study_run, arm, {}, {})
    for seed in plan.seeds:
        for number, accuracy in enumerate(accuracies):
            spec = RunSpec(arm, {"learning_rate": 0.1 + number}, seed, Purpose.TRIAL)
            result = done(spec, accuracy) if accuracy else RunResult(spec, Status.FAILED, error="no memory")
            log(store, arm_run, spec, result, trial=number)
    return arm_run


def final(arm, seed, rate):
    return RunSpec(arm, {"learning_rate": rate}, seed, Purpose.FINAL)


@pytest.fixture
def recorded(store, tmp_path):
    """A study of two strategies: one is done but for a failed seed, the other has one of two trials."""
    plan = make_plan()
    study_run = store.open_study(plan.study.name, plan.key, {}, {})
    write.record(store, study_run, plan, "default")
    scratch, full = plan.arms
    arm_run = tuned(store, plan, scratch, [0.5, 0.6])
    log(store, arm_run, final(scratch, 1, 0.1), folder=tmp_path)  # not of the best trial: it doesn't count
    log(store, arm_run, final(scratch, 1, 1.1), folder=tmp_path)
    failed = RunResult(final(scratch, 2, 1.1), Status.FAILED, error="no memory")
    log(store, arm_run, final(scratch, 2, 1.1), failed)
    tuned(store, plan, full, [0.7])
    return plan, study_run


def test_an_unfinished_study_is_reported_as_far_as_it_is(store, recorded):
    plan, _ = recorded
    evidence = read.gather(store, read.find(store, plan.key))
    assert evidence.study == plan.study
    assert evidence.runs[["strategy", "seed", "status", "param_learning_rate"]].to_numpy().tolist() == [
        ["scratch", 1, "done", 1.1],
        ["scratch", 2, "failed", 1.1],
    ]
    assert evidence.trials[["strategy", "seed", "trial"]].to_numpy().tolist() == [
        *(["scratch", seed, trial] for seed in (1, 2) for trial in (0, 1)),
        *(["full", seed, 0] for seed in (1, 2)),
    ]
    assert len(evidence.curves) == 3
    assert evidence.predictions["image"].tolist() == sorted(NAMES[3:])
    assert evidence.lacking == [
        "scratch: seed 2 failed",
        "full: 2 of 4 trials; no run of seed 1, 2",
    ]
    assert evidence.fingerprint == ""
    summary = summarise(evidence)
    assert [(r.strategy, r.done, r.failed, r.missing) for r in summary.results] == [
        ("scratch", 1, 1, 0),
        ("full", 0, 0, 2),
    ]


def test_what_was_recorded_comes_back(store, recorded):
    plan, run_id = recorded
    evidence = read.gather(store, read.find(store, plan.key))
    assert list(evidence.images) == list(NAMES[3:])
    assert evidence.split.to_numpy().tolist() == [
        *([NAMES[n], ("ant", "bee")[n % 2], "train", "1 2"] for n in (0, 1)),
        [NAMES[2], "ant", "val", ""],
        *([NAMES[n], ("ant", "bee")[n % 2], "test", ""] for n in (3, 4, 5)),
    ]
    assert (evidence.side, evidence.fit, evidence.deep) == (80, "crop", False)
    pictures = [Image.open(io.BytesIO(content)) for content in evidence.images.values()]
    assert {picture.size for picture in pictures} == {(64, 64)}
    assert evidence.provenance["near-duplicates across parts"] == (
        "1 of 3 test images has a near-duplicate in train"
    )
    assert evidence.provenance["groups"] == (
        "none are given, but 1 of 3 test images has a near-duplicate in another part; "
        "target.groups: near_duplicates would keep them together"
    )
    recorded = json.loads(next(store.reader.read_all([read.find(store, plan.key)], facts.FACTS)))
    assert recorded["near_duplicates"] == [["f.png", "test", "a/1.png", "train"]]
    assert evidence.near_duplicates == (("f.png", "test", "a/1.png", "train"),)
    assert evidence.overlap == 1.0  # both seeds train on all there is
    assert evidence.provenance["data licence"] == "CC0"
    assert evidence.provenance["images"] == {"train images": 2, "val images": 1, "test images": 3}
    assert evidence.provenance["environment"] == {"torch": "2", "threads": 1}
    assert evidence.run_pages + run_id == (
        f"http://127.0.0.1:5000/#/experiments/{store.connection.experiment_id}/runs/{run_id}"
    )


def test_pictures_are_bounded_spread_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(write, "MOST_PICTURES", 2)
    plan = make_plan()
    made = write._pictures(plan.dataset, plan.splits[1].test)
    assert list(made) == ["d.png", "f.png"]
    assert write._zipped(made) == write._zipped(dict(made))


def test_all_trials_failed_means_the_defaults(store):
    plan = make_plan()
    run_id = store.open_study(plan.study.name, plan.key, {}, {})
    write.record(store, run_id, plan, "default")
    scratch = plan.arms[0]
    arm_run = tuned(store, plan, scratch, [None, None])
    spec = RunSpec(scratch, STRATEGIES["scratch"].defaults, 1, Purpose.FINAL)
    log(store, arm_run, spec, RunResult(spec, Status.FAILED, error="no memory"))
    evidence = read.gather(store, read.find(store, plan.key))
    assert evidence.runs["run_key"].tolist() == [spec.key]
    assert "no trial is done: its runs have the defaults" in evidence.lacking[0]


def test_what_was_forgotten_does_not_count(store, tmp_path):
    """Not even for a run that failed since: the one before is of another time."""
    plan = make_plan()
    run_id = store.open_study(plan.study.name, plan.key, {}, {})
    write.record(store, run_id, plan, "default")
    scratch = plan.arms[0]
    arm_run = tuned(store, plan, scratch, [0.5, 0.6])
    old = [log(store, arm_run, final(scratch, seed, 1.1), folder=tmp_path) for seed in (1, 2)]
    now = {read.GENERATION: "a"}
    for number, accuracy in enumerate((0.5, 0.6)):
        spec = RunSpec(scratch, {"learning_rate": 0.1 + number}, 1, Purpose.TRIAL)
        log(store, arm_run, spec, done(spec, accuracy), trial=number, **now)
    lost = final(scratch, 1, 1.1)
    log(store, arm_run, lost, RunResult(lost, Status.FAILED, error="no memory"), **now)
    evidence = read.gather(store, read.find(store, plan.key))
    assert evidence.runs[["seed", "status"]].to_numpy().tolist() == [[1, "failed"]]
    assert not set(old) & set(evidence.runs["mlflow_run_id"])
    assert len(evidence.trials) == 2


def test_a_study_that_only_began_is_a_report_too(store):
    plan = make_plan()
    write.record(store, store.open_study(plan.study.name, plan.key, {}, {}), plan, "default")
    evidence = read.gather(store, read.find(store, plan.key))
    assert len(evidence.runs) == len(evidence.trials) == 0
    assert len(evidence.lacking) == 2
    assert summarise(evidence).best is None


class TestNewest:
    def test_the_same_settings_go_first_then_the_newest(self, store, recorded):
        plan, run_id = recorded
        store.writer.close(run_id, "FINISHED")
        other = make_plan(training={"epochs": 7})
        other_run = store.open_study(other.study.name, other.key, {}, {})
        write.record(store, other_run, other, "default")
        store.writer.close(other_run, "FINISHED")
        assert read.newest(store, plan.study, "default")[0].run_id == run_id
        assert read.newest(store, None, "default")[0].run_id == other_run
        failed = make_plan(training={"epochs": 8})
        failed_run = store.open_study(failed.study.name, failed.key, {}, {})
        write.record(store, failed_run, failed, "default")
        store.writer.close(failed_run, "FAILED")
        assert read.newest(store, None, "default")[0].run_id == other_run, "it may hold nothing"
        found, changed = read.newest(store, make_plan(training={"epochs": 9}).study, "default")
        assert (found.run_id, changed) == (other_run, "training.epochs was 7, is 9")

    @pytest.mark.usefixtures("recorded")
    def test_another_budget_does_not_stand_for_it(self, store):
        with pytest.raises(InputError, match="no run of the study with the budget 'full'"):
            read.newest(store, make_plan(training={"epochs": 9}).study, "full")

    def test_what_can_not_be_reported_says_why(self, store):
        with pytest.raises(InputError, match=r"holds no run of the study.*run `bench run` first"):
            read.newest(store, None, "default")
        store.open_study("small_similar", "k", {}, {})
        with pytest.raises(InputError, match="`bench run` again records it"):
            read.newest(store, None, "default")
        with pytest.raises(InputError, match="there is no experiment 'bench/none'"):
            open_store(store.connection.uri, "bench/none")


def test_a_changed_question_is_recorded_anew(store, recorded):
    plan, _ = recorded
    found = read.find(store, plan.key)
    assert write.is_recorded(found, plan)
    asked = replace(plan, study=plan.study.model_copy(update={"question": "Why?"}))
    assert asked.key == plan.key
    assert not write.is_recorded(found, asked)


def test_a_resolved_study_comes_back_as_it_was():
    study = make_plan().study
    assert parse(as_yaml(study), "here") == study
    with pytest.raises(InputError, match="here: unknown key 'colour'"):
        parse(as_yaml(study) + "colour: red\n", "here")


def test_fewer_images_than_asked_for_are_a_fact():
    plan = make_plan(target={"data": "toy", "test_labels": 9})
    said = provenance.provenance_of_plan(plan, [])["images"]["note"]
    assert said == "asked for 9 test images, 3 are left"


def test_no_folder_of_this_machine_is_named(tmp_path):
    plan = make_plan(target={"data": "toy"})
    said = [
        provenance.provenance_of_plan(replace(plan, dataset=replace(plan.dataset, origin=origin)), [])
        for origin in (str(tmp_path / "images"), "package elpv-dataset 1.0")
    ]
    assert [each.get("data origin") for each in said] == [None, "package elpv-dataset 1.0"]
    assert str(tmp_path) not in str(said)


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (["--study", "all", "--jobs", "1"], "--study small_similar --jobs 1"),
        (["--set", "seeds=2", "--study=all"], "--set seeds=2 --study=small_similar"),
        (["--output", "all", "--study", "mine.yaml"], "--output all --study mine.yaml"),
    ],
)
def test_the_command_of_one_of_all_studies_is_its_own(monkeypatch, given, recorded):
    monkeypatch.setattr("sys.argv", ["bench", "run", *given])
    assert provenance.provenance_of_plan(make_plan(), [])["command"] == f"bench run {recorded}"


def test_the_command_names_a_study_as_it_is_found(monkeypatch, tmp_path):
    (tmp_path / "studies").mkdir()
    text = "name: small_similar\nquestion: q\nsource: {model: timm/resnet18}\ntarget: {data: elpv}\n"
    (tmp_path / "studies" / "a.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", "run", "--study", "all"])
    assert provenance.provenance_of_plan(make_plan(), [])["command"] == "bench run --study a"
