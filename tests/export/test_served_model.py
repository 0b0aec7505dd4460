"""A registered model, loaded where nothing else is imported, and served: the stored predictions again."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import uvicorn
from safetensors.torch import save

from bench.core.errors import InputError
from bench.core.runs import Purpose, RunSpec, Status
from bench.experiment.plan import plan
from bench.experiment.run_executor import RunExecutor
from bench.export.served_model import describe, served
from bench.models.weights import locate
from bench.strategies.registry import STRATEGIES
from bench.study.loading import load
from bench.study_record.facts import StudyFacts
from bench.tracking.frames import FoundRun
from bench.training.setup import Compute, TrainingSetup
from tests.cli.test_cli import bench, finished, made  # noqa: F401
from tests.support.synthetic import make_study
from tests.support.tiny_study import write_tiny_study
from tests.support.tracking_contract import free_port


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a tiny study")
    write_tiny_study(folder)
    return folder


@pytest.mark.parametrize(
    ("strategy", "head"),
    [
        ("earlier_features", "linear"),
        ("earlier_features_svm", "linear"),
        ("feature_extractor", "concat_pool"),
    ],
)
def test_wherever_the_head_reads_the_exported_model_predicts_what_the_run_did(
    tiny_folder, monkeypatch, strategy, head
):
    monkeypatch.chdir(tiny_folder)
    settings = [f"strategies=[{strategy}]", f"head.kind={head}", "training.epochs=2"]
    laid_out = plan(load("tiny.yaml", settings))
    study, dataset, origin = laid_out.study, laid_out.dataset, laid_out.origin
    spec = RunSpec(laid_out.arms[0], STRATEGIES[strategy].defaults, 1, Purpose.FINAL)
    executor = RunExecutor(TrainingSetup(study, dataset, origin, Compute("cpu", 1)))
    executed = executor.run(spec, laid_out.splits[1])
    side = dataset.images.shape[1]
    facts = StudyFacts({}, dataset.classes, side, {"source weights identity": origin.identity})
    metrics, tags = executed.result.metrics, {"strategy": strategy, "seed": "1"}
    run = FoundRun("run", spec.key, Status.DONE, metrics, spec.params, tags)
    images = torch.from_numpy(dataset.images[laid_out.splits[1].test])
    of_any_size = [dict.fromkeys((0, 1, 2), torch.export.Dim.AUTO)]
    model = served(study, facts, run, save(dict(executed.weights)))
    said, temperature = describe(study, facts, run, model), metrics["val/temperature"]
    assert ("not calibrated" in said) == (strategy == "earlier_features_svm")
    assert f"A temperature of {temperature:.3g} calibrates them" in said
    exported = torch.export.export(model, (images[:2],), dynamic_shapes=of_any_size).module()
    given = exported(images)
    highest, classes = given.max(1)
    assert [dataset.classes[place] for place in classes] == executed.predictions.columns["prediction"]
    columns = executed.predictions.columns
    assert highest.tolist() == pytest.approx(columns["probability"], abs=1e-4)
    as_described = given ** (1 / temperature)
    highest = (as_described / as_described.sum(1, keepdim=True)).amax(1)
    assert highest.tolist() == pytest.approx(columns["calibrated_probability"], abs=1e-4)


def wait_for(url):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.3)
    pytest.fail(f"{url} does not answer")


LOAD = """
import json, sys
import mlflow, numpy
address, store, file = sys.argv[1:]
mlflow.set_tracking_uri(store)
model = mlflow.pytorch.load_model(address)
import torch
with torch.inference_mode():
    given = model(torch.from_numpy(numpy.load(file))).numpy()
again = mlflow.pyfunc.load_model(address)
assert "bench" not in sys.modules and "timm" not in sys.modules
assert numpy.allclose(again.predict(numpy.load(file)), given)
print(json.dumps([given.tolist(), again.metadata.metadata]))
"""


@pytest.fixture(scope="module")
def registered(finished, tmp_path_factory):  # noqa: F811
    """The address of a model, the store, its test images as a file, and what was predicted for them."""
    from bench.data import loading
    from bench.study_record import read
    from bench.tracking.store import open_store

    folder, _ = finished
    done = bench(folder, "register", "--study", "stripes.yaml")
    address = done.stdout.strip()
    uri = f"sqlite:///{folder}/home/mlflow.db"
    store = open_store(uri, "bench/stripes", create=True)
    version = store.connection.client.get_model_version("bench-stripes", address.rpartition("/")[2])
    (run,) = [
        run
        for run in store.find(pd.read_csv(folder / "reports/stripes/runs.csv")["run_key"]).values()
        if run.run_id == version.run_id
    ]
    evidence = read.gather(store, read.newest(store, load(str(folder / "stripes.yaml")), "default")[0])
    means = evidence.done.groupby("strategy", sort=False)["val_accuracy"].mean()
    assert run.tags["strategy"] == means.idxmax()
    predictions = store.reader.predictions_frame([run])
    before = Path.cwd()
    os.chdir(folder)
    try:
        dataset = loading.load(load("stripes.yaml").target, None)
    finally:
        os.chdir(before)
    place = {name: index for index, name in enumerate(dataset.names)}
    file = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(file, dataset.images[[place[name] for name in predictions["image"]]])
    return address, uri, file, predictions["prediction"].tolist()


@pytest.mark.slow
def test_it_is_loaded_without_this_package_and_predicts_the_same(registered):
    address, uri, file, expected = registered
    assert address.startswith("models:/bench-stripes/")
    command = [sys.executable, "-c", LOAD, "models:/bench-stripes/latest", uri, str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=file.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    given, metadata = json.loads(done.stdout.splitlines()[-1])
    assert [metadata["classes"][row] for row in np.argmax(given, 1)] == expected
    assert np.allclose(np.sum(given, 1), 1, atol=1e-5)


def test_other_weights_of_the_source_are_refused(tmp_path):
    weights = tmp_path / "weights.pth"
    study = make_study(source={"model": "timm/resnet10t", "weights": str(weights)})
    identities = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t").state_dict(), weights)
        identities.append(locate(study.source).identity)
        run = FoundRun("run", "", Status.DONE, {}, {}, {"strategy": "feature_extractor"}, "")
    then, now = (StudyFacts({}, ["a", "b"], 36, {"source weights identity": which}) for which in identities)
    assert served(study, now, run, save({}))
    with pytest.raises(InputError, match=r"source.weights: .* not those that the study was run with"):
        served(study, then, run, save({}))
    scratch = dataclasses.replace(run, tags={"strategy": "scratch"})
    assert served(study, then, scratch, save({})), "nothing in it is of the source"


@pytest.mark.slow
def test_it_is_served_over_http(registered):
    address, uri, file, expected = registered
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", address]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    programs = Path(uvicorn.__file__).parents[4] / "bin"  # mlflow calls uvicorn by its name
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri}
    server = subprocess.Popen(command, env=environment, cwd=file.parent, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping")
        body = json.dumps({"inputs": np.load(file)[:4].tolist()}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            given = json.load(answer)["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    classes = ("blue", "green", "red")
    assert [classes[row] for row in np.argmax(given, 1)] == expected[:4]
