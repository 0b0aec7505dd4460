"""`bench predict` and `bench export` from end to end, on tiny studies of two tasks, as a person uses them."""

import importlib.util
import io
import json
import os
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from bench.cli.app import main
from bench.system.csv_tables import from_csv
from bench.tracking.store import open_store
from tests.support.tiny_study import write_tiny_study

FEW = {"strategies": ["feature_extractor", "linear_probe"], "tuning": {"trials": 1}}
RATE = {"epochs": 2, "batch_size": 4, "precision": "fp32"}
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a tiny study of classification and pictures that it has not seen."""
    folder = tmp_path_factory.mktemp("my photos")
    write_tiny_study(folder, **FEW, training=RATE)
    (folder / "new ones").mkdir()
    rng = np.random.default_rng(1)
    for number, size in enumerate([(40, 60), (33, 90), (32, 32)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "new ones" / f"p{number}.png")
    (folder / "new ones" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with a tiny study of segmentation: bright squares on noise."""
    folder = tmp_path_factory.mktemp("my scenes")
    write_tiny_study(folder, **FEW, training=RATE)  # for its weights
    rng = np.random.default_rng(2)
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(12):
        pixels, mask = rng.integers(0, 90, (32, 48, 3), dtype=np.uint8), np.zeros((32, 48), np.uint8)
        left = int(rng.integers(2, 30))
        pixels[8:24, left : left + 14] += 150
        mask[8:24, left : left + 14] = 1
        Image.fromarray(pixels).save(folder / "data" / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "data" / "masks" / f"{number}.png")
    study = yaml.safe_load((folder / "tiny.yaml").read_text())
    study |= {"question": "Where?", "task": "segmentation", "strategies": ["full"], "seeds": 1}
    study["target"] = {"data": "data", "image_size": 32, "classes": ["ground", "square"]}
    (folder / "scenes.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.fixture(scope="module")
def call():
    """Runs `bench` in a folder within this process, on one processor."""
    with pytest.MonkeyPatch.context() as patch:

        def called(folder, *arguments, code=0):
            patch.chdir(folder)
            patch.setattr(os, "sched_getaffinity", lambda _process: {0})
            patch.setenv("BENCH_HOME", str(folder / "home"))
            patch.setattr(sys, "argv", ["bench", *map(str, arguments)])
            output, errors = io.StringIO(), io.StringIO()
            patch.setattr(sys, "stderr", errors)
            with redirect_stdout(output), pytest.raises(SystemExit) as left:
                main()
            patch.setattr(sys, "stderr", sys.__stderr__)
            assert (left.value.code or 0) == code, errors.getvalue()[-2000:]
            return SimpleNamespace(stdout=output.getvalue(), stderr=errors.getvalue())

        yield called


@pytest.fixture(scope="module")
def ran(photos, call):
    return photos, call(photos, "run", "tiny.yaml", "--jobs", 1)


@pytest.fixture(scope="module")
def segmented(scenes, call):
    return scenes, call(scenes, "run", "scenes.yaml", "--jobs", 1)


def runs_of(folder, study):
    store = open_store(f"sqlite:///{folder}/home/mlflow.db", f"bench/{study}")
    frame = pd.read_csv(folder / "reports" / study / "runs.csv")
    return store, frame, store.find(frame["run_key"])


def words_of_last_line(done):
    first, bench, *words = shlex.split(done.stdout.splitlines()[-1])
    assert (first, bench) == ("predict", "bench")
    return words


def test_a_run_ends_with_a_command_that_predicts_what_it_predicted(ran, call):
    folder, done = ran
    found = json.loads(call(folder, *words_of_last_line(done), "--json").stdout)
    store, _, runs = runs_of(folder, "tiny")
    (run,) = [run for run in runs.values() if run.run_id == found["model"]["run"]]
    stored = from_csv(next(store.reader.read_all([run], "predictions.csv")), ("image",))
    said = {one["file"]: one for one in found["predictions"]}
    assert len(said) == 48, "all images of the folder"
    for row in stored.itertuples():
        one = said[f"images/{row.image}"]
        assert one["class"] == row.prediction
        assert one["probability"] == pytest.approx(row.calibrated_probability, abs=1e-5)


def test_without_images_it_predicts_the_studys_own_test_images(ran, call):
    folder, _ = ran
    found = json.loads(call(folder, "predict", "tiny.yaml", "--json", "--strategy", "linear_probe").stdout)
    assert found["model"]["strategy"] == "linear_probe"
    store, _, runs = runs_of(folder, "tiny")
    stored = from_csv(
        next(store.reader.read_all([runs_by_id(runs)[found["model"]["run"]]], "predictions.csv"))
    )
    assert [one["file"] for one in found["predictions"]] == stored["image"].tolist()
    assert [one["class"] for one in found["predictions"]] == stored["prediction"].tolist()


def runs_by_id(runs):
    return {run.run_id: run for run in runs.values()}


def test_a_table_a_csv_and_a_sheet_say_the_same_of_new_pictures(ran, call, tmp_path):
    folder, _ = ran
    asked = [
        "new ones",
        "--threshold",
        0.99,
        "--csv",
        tmp_path / "out.csv",
        "--sheet",
        tmp_path / "sheet.png",
    ]
    done = call(folder, "predict", "tiny", *asked)
    assert "left out new ones/broken.jpg: not a JPEG" in done.stderr
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert table["file"].tolist() == [f"new ones/p{n}.png" for n in range(3)]
    assert (table["class"] == "").equals(table["probability"] < 0.99)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["file", "class", "probability"]
    assert len(lines) == 4
    assert all(len(line) <= 80 for line in lines)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000


def test_a_run_a_registered_model_and_an_export_are_the_same_model(ran, call):
    folder, _ = ran
    address = call(folder, "register", "tiny").stdout.strip()
    assert call(folder, "register", "tiny").stdout.strip() == address == "models:/bench-tiny/1"
    formats = "torch,onnx" if HAS_ONNX else "torch"
    exported = call(folder, "export", "tiny", "--format", formats)
    assert exported.stdout.startswith("exports/tiny: tiny: ")
    run = json.loads((folder / "exports/tiny/model.json").read_text())["run"]
    said = [
        call(folder, "predict", model, "new ones/*.png").stdout
        for model in ("tiny", address, "bench-tiny", run, "exports/tiny", "exports/tiny/model.json")
    ]
    assert len(set(said)) == 1
    call(folder, "export", "tiny")  # again, in place of the first
    assert not (folder / "exports/tiny/model.pt2").exists()
    assert [path.name for path in (folder / "exports").iterdir()] == ["tiny"], "nothing is left over"


def test_what_the_card_says_about_loading_is_so(ran, call, monkeypatch, tmp_path):
    folder, _ = ran
    call(folder, "export", "tiny", "--output", tmp_path / "model", "--format", "torch" + ",onnx" * HAS_ONNX)
    photo = folder / "new ones" / "p0.png"
    told = json.loads(call(folder, "predict", tmp_path / "model", photo, "--json").stdout)["predictions"][0]
    card = (tmp_path / "model" / "README.md").read_text()
    for part in ("95 % interval", "SHA-256", "Licence of the images", "Classes confused most", "Calibration"):
        assert part in card
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == 2 + HAS_ONNX
    monkeypatch.chdir(tmp_path / "model")
    Image.open(photo).save("photo.jpg", "PNG")  # the content decides
    for program in programs:
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile(program, "card", "exec"), {})
        name, probability = output.getvalue().split()
        assert name == told["class"]
        assert float(probability) == pytest.approx(
            told["probability"], abs=0.02
        )  # Pillow may round otherwise


@pytest.mark.parametrize(("option", "images"), [("--refit", 36), ("--all-labels", 48)])
def test_a_refit_has_no_score_of_its_own(ran, call, option, images, tmp_path):
    folder, _ = ran
    call(folder, "export", "tiny", option, "--strategy", "feature_extractor", "--output", tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    store, _, runs = runs_of(folder, "tiny")
    own = [run for run in runs.values() if run.tags["strategy"] == "feature_extractor"]
    curves = store.reader.curves_frame(own)
    best = [
        curve.sort_values(["val_accuracy", "val_loss", "step"], ascending=[False, True, True])["step"].iloc[0]
        for _, curve in curves.groupby("seed")
    ]
    assert facts["steps"] == round(sum(best) / len(best))
    assert facts["scores"]["test"] is None
    assert "It has no test score of its own" in (tmp_path / "model" / "README.md").read_text()
    assert facts["images"] == images


def test_a_smoke_test_says_what_it_is_and_is_registered_apart(photos, call):
    home = photos / "elsewhere"
    home.mkdir()
    for name in ("images", "weights.pth", "tiny.yaml"):
        (home / name).symlink_to(photos / name)
    done = call(home, "run", "tiny.yaml", "--jobs", 1, "--budget", "smoke")
    words = words_of_last_line(done)
    assert words[-2:] == ["--budget", "smoke"]
    assert "of a smoke test, which shows that it works and nothing more" in call(home, *words).stderr
    address = call(home, "register", "tiny", "--budget", "smoke").stdout.strip()
    assert address == "models:/bench-tiny-smoke/1"
    call(home, "predict", "tiny", "images", code=2)


def test_segmentation_gives_masks_overlays_and_an_export(segmented, call, tmp_path):
    folder, done = segmented
    words = words_of_last_line(done)
    found = json.loads(
        call(folder, *words, "--json", "--masks", tmp_path / "out", "--sheet", tmp_path / "sheet.png").stdout
    )
    assert len(found["predictions"]) == 12, "masks are no pictures"
    for one in found["predictions"]:
        with Image.open(one["mask"]) as mask:
            assert mask.size == (48, 32)
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
        assert sum(one["shares"].values()) == pytest.approx(1)
    call(folder, "export", "scenes", "--format", "onnx" if HAS_ONNX else "torch")
    again = json.loads(call(folder, "predict", "exports/scenes", "data", "--json").stdout)
    assert [one["shares"] for one in again["predictions"]] == [one["shares"] for one in found["predictions"]]
    assert call(folder, "register", "scenes").stdout.strip() == "models:/bench-scenes/1"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["predict", "tny", "images"], "nothing is stored of 'tny'; did you mean 'tiny'?"),
        (["predict", "tiny", "nothing.png"], "nothing.png: there is no such file or folder"),
        (["predict", "tiny", "new ones/broken.jpg"], "there is no picture that can be opened"),
        (["predict", "tiny", "images", "--threshold", "2"], "--threshold: 2 is no probability"),
        (
            ["predict", "tiny", "images", "--masks", "out"],
            "--masks: a model of classification gives no masks",
        ),
        (["predict", "tiny", "images", "--strategy", "full"], "--strategy: no final run of 'full' is done"),
        (["predict", "tiny", "images", "--csv", "/proc/x/y.csv"], "--csv: /proc is no folder"),
        (["predict", "0" * 32, "images"], "there is no run 00000"),
        (["export", "tiny", "--format", "onx"], "--format: unknown format 'onx'; did you mean 'onnx'?"),
        (["export", "tiny", "--refit", "--all-labels"], "--refit and --all-labels say both"),
        (["export", "tiny", "--output", "images"], "images: is there, and no exported model"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:40],
)
def test_a_mistake_is_one_line(ran, call, arguments, line):
    folder, _ = ran
    done = call(folder, *arguments, code=2)
    assert line in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bench: ")
    assert "Traceback" not in done.stderr
    assert not Path(folder, "out").exists()
