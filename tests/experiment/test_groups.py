"""Groups on the way of a study: from a table to predictions, provenance and what is said of it."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.cli import console
from bench.data.dataset import Dataset
from bench.experiment.options import Options
from bench.experiment.plan import plan
from bench.experiment.progress import Progress
from bench.experiment.study_runner import StudyRunner
from bench.study.loading import load
from bench.training.targets.base import PredictionRecord

SETTINGS = ["strategies=[linear_probe]", "tuning.trials=1", "seeds=2", "target.data=images"]


@pytest.fixture
def grouped(tiny_folder, tmp_path, monkeypatch):
    """A copy of the tiny study that says which images belong together: every fourth of a colour."""
    monkeypatch.chdir(shutil.copytree(tiny_folder, tmp_path / "grouped"))
    with Path("images/metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "group"])
        for colour in ("red", "green", "blue"):
            table.writerows([f"{colour}/{n}.png", f"{colour} {n % 4}"] for n in range(16))
    return "tiny.yaml"


def test_a_study_keeps_the_groups_of_what_it_tests(grouped, tmp_path, monkeypatch, capsys, new_store):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    laid_out = plan(load(grouped, SETTINGS))
    console.announce(laid_out)
    assert "  groups   by group: 6 in train, 3 in val, 3 in test" in capsys.readouterr().out
    options = Options(device="cpu", jobs=1, threads=1, tracking_uri=new_store(tmp_path / "runs.db"))
    runner = StudyRunner(laid_out, options, Progress("accuracy"))
    runner.run()
    evidence = runner.evidence()
    of_image = {
        f"{colour}/{n}.png": f"{colour} {n % 4}" for colour in ("red", "green", "blue") for n in range(16)
    }
    predictions = evidence.predictions
    assert len(predictions) == 2 * 12
    assert predictions["group"].tolist() == [of_image[name] for name in predictions["image"]]
    assert evidence.provenance["groups"] == {"kind": "group", "in train": 6, "in val": 3, "in test": 3}


def test_the_key_covers_groups_by_the_data_alone(grouped):
    keys = [
        plan(load(grouped, [*SETTINGS, f"target.{setting}"])).key
        for setting in ("groups=auto", "groups=none", r"group_pattern='^(\w+/\d)'")
    ]
    assert len(set(keys)) == 3
    target = plan(load(grouped, SETTINGS)).arms[0].settings["target"]
    assert not {"groups", "group_pattern"} & set(target)


@pytest.mark.parametrize("images", [["a", "b", "c"], ["a", "a", "b", "c", "c"]])
def test_every_row_of_an_image_has_its_group(images):
    """Of masks and label sets there are several rows for an image."""
    made = Dataset("made", ("x",), np.zeros((4, 1, 1, 3)), np.zeros(4, int), np.zeros(4), tuple("dabc"), "")
    record = PredictionRecord({"image": images})
    assert "group" not in record.with_groups(made, np.array([1, 2, 3])).columns
    found = record.with_groups(made.grouped(["=1", "m1", "m1", "m2"], "module"), np.array([1, 2, 3]))
    assert found.columns["group"] == [{"a": "m1", "b": "m1", "c": "m2"}[name] for name in images]
