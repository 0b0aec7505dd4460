"""The command line, from end to end, as a person uses it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from bench.cli import inspect
from bench.cli.app import main
from tests.support.tiny_bench import main_of, one_thread, preloaded

MODEL = "timm/resnet10t"
STRATEGIES = ["scratch", "feature_extractor", "partial", "full", "discriminative"]


class Command:
    """`bench` in a folder, in a process of its own that has everything imported, and one processor.

    More processes, which would each import everything, are what the tests of faults are about.
    """

    def __init__(self, folder, arguments, logs, **environment):
        self.output, self.errors = logs / "output", logs / "errors"
        settings = {**os.environ, "BENCH_HOME": str(folder / "home"), **environment}
        home = settings.pop("BENCH_HOME")
        of = (folder, home, arguments, settings, [str(self.output), str(self.errors)], one_thread)
        self.process = preloaded().Process(target=main_of, args=of)
        self.process.start()

    def finish(self):
        """Wait for its end; return exit status and what it said."""
        self.process.join(600)
        said = (file.read_text() if file.exists() else "" for file in (self.output, self.errors))
        return SimpleNamespace(
            returncode=self.process.exitcode, **dict(zip(("stdout", "stderr"), said, strict=True))
        )


def bench(folder, *arguments, check=True, **environment):
    """Run `bench` in a folder; return its exit status and what it said."""
    with tempfile.TemporaryDirectory() as logs:
        done = Command(folder, arguments, Path(logs), **environment).finish()
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def bench_here(made, monkeypatch, capfd):
    """Run `bench` in the project's folder within this process, which has torch imported already."""

    def call(*arguments, home=None):
        monkeypatch.chdir(made)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
        monkeypatch.setenv("BENCH_HOME", str(home or made / "home"))
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code or 0, stdout=output.out, stderr=output.err)

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder of coloured stripes in three classes, a file of weights, and a study on them."""
    import timm
    import torch

    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[:, (number % 4) :: 4, label] += 130
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    (folder / "images" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), folder / "weights.pth")
    study = {
        "question": "Which stripes?",
        "scenario": {"size": "small", "similarity": "different"},
        "source": {"model": MODEL, "weights": "weights.pth"},
        "target": {"data": "images", "image_size": 32},
        "training": {"epochs": 2, "batch_size": 12},
        "tuning": {"trials": 2},
        "seeds": 2,
    }
    (folder / "stripes.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.fixture(scope="session")
def finished(made):
    """The study, run once, as a person would."""
    command = [sys.executable, "-m", "bench", "run", "--study", "stripes.yaml"]
    environment = {**os.environ, "BENCH_HOME": str(made / "home")}
    done = subprocess.run(
        command, cwd=made, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return made, done


def test_a_program_is_given_json_and_nothing_else_and_a_person_the_answer(finished, bench_here):
    folder, _ = finished
    done = bench_here("report", "--study", "stripes.yaml", "--json")
    said = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert said == json.loads((folder / "reports/stripes/summary.json").read_text()) | {
        "report": "reports/stripes"
    }
    found = bench_here("run", "stripes.yaml", "-q")
    assert found.stdout.splitlines()[-1] == "reports/stripes/index.html"
    assert found.stdout.count("\n") == 2
    assert found.stderr == ""
    both = bench_here("run", "stripes.yaml", "-q", "--json")
    assert (both.returncode, both.stdout) == (2, "")


def test_a_run_gives_table_report_and_rows(finished):
    folder, done = finished
    assert "left out red/broken.jpg" in done.stdout
    assert all(name in done.stdout for name in ("Test accuracy", "report  reports/stripes/index.html"))
    report = folder / "reports" / "stripes"
    assert {path.name for path in report.iterdir()} >= {
        *("runs.csv", "trials.csv", "summary.json", "report.md", "index.html", "figures")
    }
    runs, trials = (pd.read_csv(report / name) for name in ("runs.csv", "trials.csv"))
    assert set(runs["strategy"]) == set(STRATEGIES)
    assert (runs.groupby("strategy")["seed"].agg(list).map(sorted).map(tuple) == (1, 2)).all()
    assert (trials.groupby(["strategy", "seed"]).size() == 2).all()
    assert not [column for column in trials.columns if column.startswith("test")], "tuning never sees test"
    frozen = runs[runs["strategy"] == "feature_extractor"]["trainable_parameters"]
    assert (frozen == 512 * 3 + 3).all()
    assert json.loads((report / "summary.json").read_text())
    assert "broken.jpg" in (report / "report.md").read_text()


def test_final_runs_keep_weights_predictions_and_what_they_were_made_with(finished):
    folder, _ = finished
    from safetensors.numpy import load_file

    from bench.tracking.store import open_store

    runs = pd.read_csv(folder / "reports" / "stripes" / "runs.csv")
    store = open_store(f"sqlite:///{folder}/home/mlflow.db", "bench/stripes", create=True)
    found = list(store.find(runs["run_key"]).values())
    predictions = store.reader.predictions_frame(found)
    hits = (predictions["target"] == predictions["prediction"]).groupby(predictions["strategy"]).mean()
    stated = runs.groupby("strategy")["test_accuracy"].mean()
    assert hits.to_dict() == pytest.approx(stated.to_dict(), abs=1e-6)
    assert len(store.reader.curves_frame(found)) == len(runs) * 2
    files = sorted((folder / "home").rglob("weights.safetensors"))
    assert len(files) == len(runs)
    sizes = {len(load_file(file)) for file in files}
    assert min(sizes) == 2, "a frozen backbone's file holds the head alone"


def test_the_same_command_again_trains_nothing_and_writes_nothing(finished):
    folder, done = finished
    report = folder / "reports" / "stripes" / "runs.csv"
    before, page = report.read_text(), report.with_name("index.html")
    drawn = page.stat().st_mtime_ns
    again = bench(folder, "run", "--study", "stripes.yaml")
    assert "loading torch" not in again.stderr
    assert "2 seeds found done" in again.stderr
    assert again.stdout == done.stdout, "the table and the verdict are shown again"
    assert page.stat().st_mtime_ns == drawn
    page.unlink()
    bench(folder, "run", "--study", "stripes.yaml")
    assert page.exists(), "a report that lacks its page is drawn again"
    assert report.read_text() == before
    bench(folder, "report", "--study", "stripes.yaml", "--output", "elsewhere")
    assert (folder / "elsewhere" / "stripes" / "runs.csv").read_text() == before


def test_a_report_that_is_not_in_the_store_yet_is_put_there(finished):
    from bench.study_record.freshness import PUBLISHED
    from bench.tracking.store import open_store

    folder, _ = finished
    store = open_store(f"sqlite:///{folder}/home/mlflow.db", "bench/stripes", create=True)
    (study,) = store.reader.studies()
    assert study.tags[PUBLISHED]
    store.connection.client.delete_tag(study.run_id, PUBLISHED)
    page = folder / "reports" / "stripes" / "index.html"
    drawn = page.stat().st_mtime_ns
    bench(folder, "run", "--study", "stripes.yaml")
    assert store.reader.studies()[0].tags[PUBLISHED] == study.tags[PUBLISHED]
    assert page.stat().st_mtime_ns == drawn, "and not drawn again"


def test_a_report_needs_the_store_alone(finished, tmp_path):
    folder, _ = finished
    store = f"sqlite:///{folder}/home/mlflow.db"
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([n for n in ['torch'] if n in sys.modules], file=sys.stderr))\n"
        "from bench.cli.app import main\n"
        f"sys.argv[1:] = ['report', '--study', 'stripes', '--tracking-uri', '{store}']\n"
        "main()\n"
    )
    here = {**os.environ, "BENCH_HOME": str(tmp_path / "home"), "BENCH_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=here, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"]), done.stderr
    made = pd.read_csv(tmp_path / "reports" / "stripes" / "runs.csv")
    pd.testing.assert_frame_equal(made, pd.read_csv(folder / "reports" / "stripes" / "runs.csv"))
    page = (tmp_path / "reports" / "stripes" / "report.md").read_text()
    assert "red/broken.jpg" in page
    assert "bench run --study stripes.yaml" in page


def test_more_seeds_do_only_what_is_missing(finished, tmp_path):
    folder, _ = finished
    arguments = ("run", "--study", "stripes.yaml", "--strategy", "feature_extractor", "--seeds", "3")
    done = bench(folder, *arguments, "--output", tmp_path)
    assert "feature_extractor: 4 trials found done" in done.stderr
    assert "seed 3/3" in done.stderr
    assert "seed 1/3" not in done.stderr


def interrupt(made, home, command):
    """Send Ctrl-C after a first trial; return those that were done, and what was said."""
    with tempfile.TemporaryDirectory() as logs:
        running = Command(made, command, Path(logs), BENCH_HOME=str(home))
        while running.process.is_alive():
            if running.errors.exists() and "seed 1, trial 1/2" in running.errors.read_text():
                os.kill(running.process.pid, signal.SIGINT)
                break
            time.sleep(0.05)
        done = running.finish()
    assert done.returncode == 130, done.stderr
    again = " ".join(word for word in command if word != "--fresh")
    assert f"bench: interrupted; `bench {again}` goes on from here" in done.stderr
    return trials_in(done.stderr)


def trials_in(said):
    return set(re.findall(r"seed \d, trial \d/2(?=:)", said))


def test_an_interrupted_run_leaves_with_130_and_goes_on(made, tmp_path):
    from bench.tracking.store import open_store

    home, report = tmp_path / "home", tmp_path / "stripes"
    command = ["run", "stripes.yaml", "--output", str(tmp_path), "--strategy", "scratch"]
    command += ["--epochs", "6", "--set", "training.schedule=one_cycle", "--set", "tuning.pruner=none"]
    found, numbers = [], []
    for fresh in ([], ["--fresh"]):
        if fresh:
            (arm,) = open_store(
                f"sqlite:///{home}/mlflow.db", "bench/stripes", create=True
            ).connection.search("tags.purpose = 'arm'")
            checkpoint = home / "checkpoints" / f"{arm.data.tags['bench.key']}-of-a-run.pt"
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_bytes(b"of before")
        before = interrupt(made, home, [*command, *fresh])
        done = bench(made, *command, BENCH_HOME=str(home))
        assert before
        assert not before & trials_in(done.stderr)
        assert len(before | trials_in(done.stderr)) == 2 * 2
        tables = [pd.read_csv(report / name) for name in ("runs.csv", "trials.csv")]
        found.append({run_id for table in tables for run_id in table["mlflow_run_id"]})
        numbers.append(tables[0][["seed", "val_loss", "test_loss"]].to_dict())
    assert not checkpoint.exists()
    assert not found[0] & found[1], "nothing of before --fresh is taken, though it was interrupted"
    assert numbers[0] == numbers[1]
    left = open_store(f"sqlite:///{home}/mlflow.db", "bench/stripes", create=True).connection.search(
        "attributes.status = 'RUNNING'"
    )
    assert left == []


def test_a_run_that_fails_is_a_row_and_exit_status_1(made, tmp_path):
    done = bench(
        made, "run", "--study", "stripes.yaml", "--strategy", "full", "--output", tmp_path, "--set",
        "training.optimizer=sgd", "--set", "training.gradient_clip=null", "--set",
        "source.std=[1e-44, 1e-44, 1e-44]",
        "--set", "source.mean=[0, 0, 0]", check=False, BENCH_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "failed: train/loss is not finite" in done.stderr
    runs = pd.read_csv(tmp_path / "stripes" / "runs.csv")
    assert list(runs["status"]) == ["failed", "failed"]
    assert runs["test_accuracy"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--study", "small_simila"], "did you mean 'small_similar'?"),
        (["run", "--study", "stripes.yaml", "--strategy", "ful"], "unknown strategy 'ful'"),
        (["run", "--study", "stripes.yaml", "--set", "training.epoch=1"], "did you mean 'training.epochs'?"),
        (["run", "--study", "stripes.yaml", "--set", "target.data=elpw"], "did you mean 'elpv'?"),
        (["run", "--study", "stripes.yaml", "--data", "nowhere"], "nowhere"),
        (["run", "--study", "stripes.yaml", "--device", "cuda:99"], "there is no device cuda:99"),
        (["run", "--study", "stripes.yaml", "--set", "source.model=timm/resnet10"], "did you mean 'resnet"),
        (["run", "--study", "stripes.yaml", "--set", "source.weights=gone.pth"], "there is no file gone.pth"),
        (["run", "--study", "stripes.yaml", "--set", "source.weights=packaged"], "no packaged weights"),
        (["run", "--study", "stripes.yaml", "--set", "source.weights=stripes.yaml"], "not a file of weights"),
        (["run", "--study", "stripes.yaml", "--set", "source.model=timm/resnet18"], "weights don't fit"),
        (["run", "--study", "stripes.yaml", "--set", "source.weights=default"], "can't be downloaded"),
        (["run", "--study", "stripes.yaml", "--set", "training.precision=bf17"], "training.precision"),
        (["run", "--study", "stripes.yaml", "--set", "target.train_labels=5000"], "target.train_labels"),
        (["run", "--study", "stripes.yaml", "--tracking-uri", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (
            ["report", "--study", "stripes.yaml", "--set", "training.epochs=9"],
            "run `bench run stripes.yaml` first",
        ),
        (["report", "--study", "small_similra"], "did you mean 'small_similar'?"),
        (["run", "--study", "stripes.yaml", "--sizes", "10,many"], "'many' is not a number of labels"),
        (["run", "--study", "stripes.yaml", "--sizes", "0,10"], "'0' is not a number of labels"),
        (["run", "--study", "stripes.yaml", "--sizes", "10"], "one size is no curve"),
        (["run", "--study", "stripes.yaml", "--sizes", "10,5000"], "give at most"),
        (
            [
                "run",
                "--study",
                "stripes.yaml",
                "--sizes",
                "10,30",
                "--budget",
                "smoke",
                "--set",
                "target.cap=20",
            ],
            "give at most 20",
        ),
        (["report", "--study", "all"], "the store holds none of the studies"),
        (["list", "models", "resnext999"], "no models match"),
        (["run", "--study", "stripes.yaml", "--output", "stripes.yaml"], "no folder that can be written to"),
        (["run", "--stduy", "stripes.yaml"], "No such option"),
        (["run"], "nothing is named; give a study (see `bench list`), or a folder or table of images"),
        (["run", "imagse"], "did you mean 'images'?"),
        (["run", "images", "--data", "images"], "images and images are both data"),
        (["run", "images", "--device", "gpu"], "unknown device 'gpu'"),
        (
            ["run", "stripes.yaml", "--tracking-uri", "mlruns", "--dry-run"],
            "not the address of a run store",
        ),
        (["report", "images"], "there is no run store; run `bench run "),
        (["check", "all"], "name one of them"),
        (["report", "stripes.yaml", "--output", "/proc/x"], "can be written to"),
        (["run", "--study", "stripes.yaml", "--dry-run", "--strategy", "full,ful"], "did you mean 'full'?"),
        (["run", "--study", "stripes.yaml", "--dry-run", "--device", "gpu"], "unknown device 'gpu'"),
        (["run", "--study", "stripes.yaml", "--dry-run", "--output", "/proc/x"], "can be written to"),
        (
            ["run", "--study", "stripes.yaml", "--dry-run", "--set", "source.model=timm/resnet50.a1_in1kk"],
            "timm has no weights 'resnet50.a1_in1kk'; did you mean 'resnet50.a1_in1k'?",
        ),
        (
            ["run", "--study", "stripes.yaml", "--dry-run", "--set", "source.model=torchvision/resnet50.V1"],
            "torchvision has no weights 'resnet50.V1'; did you mean 'resnet50'?",
        ),
        (
            [
                "run",
                "--study",
                "stripes.yaml",
                "--dry-run",
                "--strategy",
                "linear_probe",
                "--set",
                "head.dropout=0.5",
            ],
            "linear_probe needs a linear head without dropout",
        ),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_status_2(made, bench_here, tmp_path, arguments, says):
    before = sorted(path.name for path in made.iterdir())
    done = bench_here(*arguments, home=tmp_path / "home")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("bench: ")]
    assert len(complaint) == 1 or "No such option" in done.stderr
    assert sorted(path.name for path in made.iterdir()) == before
    assert not list((tmp_path / "home").rglob("*.tmp"))


def test_whatever_is_interrupted_leaves_with_130(bench_here, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setitem(inspect.LISTINGS, inspect.Listing.metrics, interrupt)
    done = bench_here("list", "metrics")
    assert (done.returncode, done.stderr) == (130, "bench: interrupted\n")


def test_the_dashboard_shows_every_tuning_of_the_store(finished, free_port):
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is in the extra `dashboard`")
    folder, _ = finished
    command = [sys.executable, "-m", "bench", "ui", "--tuning", "--port", str(free_port)]
    environment = {**os.environ, "BENCH_HOME": str(folder / "home")}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line == f"Optuna's dashboard is at http://127.0.0.1:{free_port} (Ctrl-C stops it)\n"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{free_port}/api/studies", timeout=30) as answer:
            shown = json.load(answer)["study_summaries"]
        with direct.open(f"http://127.0.0.1:{free_port}/dashboard/", timeout=30) as answer:
            assert b"Optuna" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert sorted(study["study_name"] for study in shown) == sorted(f"stripes/{name}" for name in STRATEGIES)
    assert (process.returncode, output) == (0, "")


def test_check_builds_every_arm_and_says_where_things_come_from(bench_here):
    done = bench_here("check", "--study", "stripes.yaml")
    assert done.stdout.count("one step done") == len(STRATEGIES)
    for text in ("file weights.pth", "start: he", "0 0 0 0 · 1", "train_labels: null"):
        assert text in done.stdout


def test_check_trains_on_images_of_every_class(bench_here):
    settings = ("--set", "strategies=[linear_probe]", "--set", "training.batch_size=2")
    done = bench_here("check", "--study", "stripes.yaml", *settings)
    assert done.returncode == 0, done.stderr
    assert "linear_probe: 1,539 trainable parameters; one step done" in done.stdout


def test_a_dry_run_shows_the_resolved_study_and_does_nothing(bench_here, tmp_path):
    done = bench_here("run", "--study", "stripes.yaml", "--trials", 7, "--dry-run", home=tmp_path / "none")
    assert yaml.safe_load(done.stdout)["tuning"]["trials"] == 7
    assert not (tmp_path / "none").exists()


def test_a_dry_run_shows_every_size_and_knows_the_models(bench_here):
    done = bench_here("run", "--study", "stripes.yaml", "--sizes", "9,6", "--dry-run")
    assert [shown["target"]["train_labels"] for shown in yaml.safe_load_all(done.stdout)] == [6, 9]
    done = bench_here("run", "--study", "stripes.yaml", "--set", "source.model=timm/resnet5o", "--dry-run")
    assert done.returncode == 2
    assert "source.model: timm has no model 'resnet5o'; did you mean 'resnet50'?" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("study", ["hymenoptera", "camvid"])
def test_a_study_without_its_data_says_how_to_name_them(bench_here, study):
    done = bench_here("run", "--study", study)
    assert done.returncode == 2
    assert "nor a folder; give a folder with --data DIR; valid: " in done.stderr
    listed = bench_here("list", "studies").stdout.splitlines()
    (own,) = [line for line in listed if line.startswith(f"{study} ")]
    assert re.search(r"\(needs --data DIR, or a folder \w+\)$", own)
    assert not [line for line in listed if line.startswith("small_similar ") and "--data" in line]


def test_preview_draws_a_picture(made, bench_here):
    done = bench_here("preview", "--study", "stripes.yaml", "--images", 3)
    with Image.open(made / done.stdout.strip()) as picture:
        assert min(picture.size) > 100


def test_lists(bench_here):
    assert "small_similar" in bench_here("list", "studies").stdout
    assert bench_here("list").stdout == bench_here("list", "studies").stdout
    assert bench_here("list", "strategies").stdout.splitlines()[0].startswith("scratch")
    assert "elpv" in bench_here("list", "datasets").stdout
    models = bench_here("list", "models", "resnet18").stdout
    assert "timm/resnet18" in models
    assert "torchvision/resnet18" in models


def test_several_numbers_of_labels(made, bench_here, tmp_path):
    arguments = (
        "--study", "stripes.yaml", "--sizes", "24, 6", "--set", "strategies=[feature_extractor, full]",
        "--set", "tuning.trials=1", "--set", "training.epochs=1",
    )  # fmt: skip
    home = tmp_path / "home"
    done = bench_here("run", *arguments, "--jobs", 1, "--output", tmp_path / "a", home=home)
    assert done.returncode == 0, done.stderr
    assert "feature_extractor" in done.stdout.splitlines()[-3]
    folder = tmp_path / "a" / "stripes-sizes"
    runs = pd.read_csv(folder / "runs.csv")
    assert runs.groupby(["train_labels", "strategy"]).size().tolist() == [2, 2, 2, 2]
    points = pd.read_csv(folder / "figures" / "efficiency.csv")
    assert points[["strategy", "labels"]].to_numpy().tolist() == [
        [strategy, size] for strategy in ("feature_extractor", "full") for size in (6, 24)
    ]
    again = bench_here("run", *arguments, "--output", tmp_path / "a", home=home)
    assert "loading torch" not in again.stderr
    bench_here("report", *arguments, "--output", tmp_path / "b", home=home)
    assert (tmp_path / "b" / "stripes-sizes" / "report.md").read_text() == (folder / "report.md").read_text()
    alone = bench_here("report", "--study", "stripes", "--output", tmp_path / "b", home=home)
    assert "no run of the study with the budget 'default'" in alone.stderr, "a size is not the study"
    size = [*arguments[:2], *arguments[4:], "--set", "target.train_labels=6"]
    done = bench_here("run", *size, "--output", tmp_path / "a", home=home)
    assert "loading torch" not in done.stderr
    alone = bench_here("report", "--study", "stripes", "--output", tmp_path / "b", home=home)
    assert alone.returncode == 0, "unless the study itself was asked for, too"
    assert "train images 6," in (tmp_path / "b" / "stripes" / "report.md").read_text()
    bench_here("run", *arguments, "--output", tmp_path / "a", home=home)
    assert bench_here("report", "--study", "stripes", "--output", tmp_path / "b", home=home).returncode == 0


def test_a_linear_probe_is_a_strategy_like_the_others(made):
    done = bench(
        made, "run", "--study", "stripes.yaml", "--strategy", "linear_probe", "--trials", "3", "--output", "p"
    )
    assert "linear_probe: test accuracy" in done.stdout
    assert "Nothing else was run to compare it with." in done.stdout
    report = made / "p" / "stripes"
    assert (pd.read_csv(report / "trials.csv")["param_l2_strength"] > 0).sum() == 2 * 3
    assert pd.read_csv(report / "runs.csv")["test_accuracy"].min() > 0.5


def test_a_folder_with_train_and_val_of_real_photographs(shared_data, tmp_path):
    done = bench(
        tmp_path, "run", "--study", "hymenoptera", "--data", shared_data / "hymenoptera_data", "--budget",
        "smoke", "--strategy", "feature_extractor", "--set", "target.image_size=96",
        "--set", "target.cap=null",
    )  # fmt: skip
    assert "imageNotFound.gif" in done.stdout
    (report,) = (tmp_path / "reports").glob("hymenoptera-????????-smoke")
    assert pd.read_csv(report / "runs.csv")["test_accuracy"].min() > 0.8
    assert (report / "index.html").stat().st_size > 10_000


def test_a_folder_of_images_needs_no_study(made, bench_here, tmp_path):
    home = tmp_path / "home"
    few = ("--strategy", "feature_extractor", "--budget", "smoke", "--jobs", 1, "--output", tmp_path)
    weights = ("--set", f"source.model={MODEL}", "--set", "source.weights=weights.pth")
    done = bench_here("run", "images", *few, *weights, home=home)
    assert done.returncode == 0, done.stderr
    name = re.match(r"images-[0-9a-f]{8}", done.stdout)[0]
    for line in (
        f"{name}: What is the best way to use resnet10t on images?",
        "  size     64 px: the images have 32 x 32 px in the median, so more would show nothing more",
        "  labels   43 to train on, 11 to choose by, 18 to test on",
    ):
        assert line in done.stdout.splitlines(), done.stdout
    page = (tmp_path / f"{name}-smoke" / "report.md").read_text()
    assert f"bench run images {' '.join(map(str, few))}" in page
    again = bench_here("run", "images", *few, *weights, home=home)
    assert "loading torch" not in again.stderr
    assert again.stdout == done.stdout
    for subject in (("images", *weights), (name,)):
        said = bench_here("report", *subject, "--budget", "smoke", "--output", tmp_path / "b", home=home)
        assert (tmp_path / "b" / f"{name}-smoke" / "report.md").read_text() == page, said.stderr
    other = bench_here("run", "--study", "stripes.yaml", "--data", made / "images" / "..", *few, home=home)
    assert other.returncode == 2, "a folder of no classes"
    near = bench_here("report", f"{name[:-1]}x", home=home)
    assert f"nothing is stored of '{name[:-1]}x'; did you mean '{name}'?" in near.stderr


def test_a_comma_list_of_strategies_and_a_short_question_for_help(bench_here):
    done = bench_here(
        "run", "--study", "stripes.yaml", "--strategy", "full, scratch", "--strategy", "partial", "--dry-run"
    )
    assert yaml.safe_load(done.stdout)["strategies"] == ["full", "scratch", "partial"]
    done = bench_here("run", "--study", "stripes.yaml", "--set", "strategies=full,scratch", "--dry-run")
    assert yaml.safe_load(done.stdout)["strategies"] == ["full", "scratch"]
    done = bench_here(
        "run", "stripes.yaml", "--set", "strategies=full,scratch,training.epochs=3,seeds=4", "--dry-run"
    )
    shown = yaml.safe_load(done.stdout)
    assert (shown["strategies"], shown["training"]["epochs"], shown["seeds"]) == (["full", "scratch"], 3, 4)
    assert bench_here("run", "-h").stdout == bench_here("run", "--help").stdout


def test_debug_shows_where_an_error_comes_from(bench_here, monkeypatch):
    monkeypatch.setenv("BENCH_DEBUG", "")
    wrong = ("run", "--study", "stripes.yaml", "--set", "training.epochs=[", "--dry-run")
    assert "Traceback" not in bench_here(*wrong).stderr
    shown = bench_here(*wrong, "--debug").stderr
    assert shown.startswith("bench: --set: the value of 'training.epochs' is not valid YAML\nTraceback")
    assert "yaml.parser.ParserError" in shown, "its cause, too"
    assert os.environ["BENCH_DEBUG"] == "1", "in every process"
