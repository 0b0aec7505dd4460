"""Further test sets are read once for each final run, and have results and a verdict of their own."""

import json

import numpy as np
import pytest
from PIL import Image

from bench.analysis.summary import Summary, summarise
from bench.core.errors import InputError
from bench.core.runs import Purpose
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.study_runner import StudyRunner
from bench.report import study_report
from bench.study.loading import load
from bench.study.metrics import metrics_of

STRATEGIES = ("linear_probe", "feature_extractor", "full")
SETTINGS = [
    f"strategies=[{','.join(STRATEGIES)}]", "training.epochs=1", "tuning.trials=1", "seeds=2",
    "target.also_test={swapped: swapped, same: images}",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_folder(tiny_folder):
    """Beside the study's images others, under the names of their neighbours: green ones are called red."""
    for true, said in (("red", "green"), ("green", "blue"), ("blue", "red")):
        (tiny_folder / "swapped" / said).mkdir(parents=True)
        for file in sorted((tiny_folder / "images" / true).iterdir()):
            pixels = np.asarray(Image.open(file))
            Image.fromarray(255 - pixels).save(tiny_folder / "swapped" / said / file.name)
    return tiny_folder


@pytest.fixture
def runner(tiny, tmp_path, monkeypatch, new_store):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    options = Options(device="cpu", jobs=1, threads=1, tracking_uri=new_store(tmp_path / "runs.db"))
    made = StudyRunner(plan(load(tiny, SETTINGS)), options, Progress("accuracy"))
    made.run()
    return made


def test_each_has_results_and_a_verdict_of_its_own(runner, tmp_path):
    evidence = runner.evidence()
    own, metric = evidence.runs.set_index(["strategy", "seed"]), "test_accuracy"
    for name, images in (("swapped", 48), ("same", 48)):
        also = evidence.also[name]
        assert len(also.predictions) == images * len(own)
        for (strategy, seed), rows in also.predictions.groupby(["strategy", "seed"]):
            stated = also.runs.set_index(["strategy", "seed"]).loc[(strategy, seed), metric]
            assert stated == pytest.approx((rows["target"] == rows["prediction"]).mean())
    assert evidence.also["same"].provenance["known"] == "48 of its images are also in the study's own data"
    of_test = evidence.predictions.set_index(["strategy", "seed", "image"])["prediction"]
    same = evidence.also["same"].predictions.set_index(["strategy", "seed", "image"])["prediction"]
    assert (same[of_test.index] == of_test).mean() > 0.99, "stored features round in another way"

    summary = summarise(evidence)
    assert summary.also.keys() == {"swapped", "same"}
    assert summary.also["swapped"].images == 48
    assert summary.also["swapped"].best == summary.best, "validation chooses, no test set does"
    assert Summary.from_json(json.loads(json.dumps(summary.as_json()))) == summary
    study_report.write(evidence, tmp_path / "report")
    for file in ("report.md", "index.html"):
        text = (tmp_path / "report" / file).read_text()
        assert "Also tested on swapped" in text
        assert "48 of its images are also in the study" in text
    assert (tmp_path / "report/tables/results-swapped.csv").read_text().count("\n") == 1 + len(STRATEGIES)


def test_no_trial_reads_them_and_a_run_s_key_knows_them(runner, tiny):
    arm = runner.plan.arms[0]
    for purpose, there in ((Purpose.TRIAL, set()), (Purpose.FINAL, {"also/same", "also/swapped"})):
        for run in runner.store.reader.runs_of_arm(arm.key, purpose):
            read = {name.rpartition("/")[0] for name in run.metrics if name.startswith("also/")}
            assert read == there
            if there:
                assert {f"also/same/{name}" for name in metrics_of("classification")} <= run.metrics.keys()
    without = plan(load(tiny, SETTINGS[:-1]))
    assert without.arms[0].key != arm.key
    assert "also test" not in without.arms[0].settings


def test_they_are_for_one_class_an_image():
    with pytest.raises(
        InputError, match=r"target\.also_test is for one class an image, not for segmentation"
    ):
        load("segmentation_packaged", ["target.also_test={other: digit_scenes}"])
