"""A registered model, loaded where nothing else is imported, and served: the stored predictions again."""

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
import uvicorn

from bench.export.registration import describe, registered_name
from bench.study.loading import load
from tests.cli.test_cli import bench, finished, made  # noqa: F401
from tests.export.test_served_model import facts_for
from tests.support.tracking_contract import free_port


def test_a_smoke_test_is_never_the_latest_version_of_a_model():
    facts = facts_for("classification")
    assert registered_name(facts) == "bench-tiny"
    assert registered_name(facts.model_copy(update={"budget": "smoke"})) == "bench-tiny-smoke"


def test_its_description_names_classes_and_what_calibrates_it():
    facts = facts_for("classification")
    assert "the probabilities of a, b, c." in describe(facts)
    assert "temperature" not in describe(facts)
    calibrated = facts.model_copy(update={"temperature": 1.234})
    assert "calibrated by a temperature of 1.23, fitted on validation" in describe(calibrated)


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
    assert not done.stderr, "it warns of nothing"
    assert bench(folder, "register", "stripes.yaml").stdout.strip() == address, (
        "the same run, the same version"
    )
    uri = f"sqlite:///{folder}/home/mlflow.db"
    store = open_store(uri, "bench/stripes", create=True)
    version = store.connection.client.get_model_version("bench-stripes", address.rpartition("/")[2])
    (run,) = [
        run
        for run in store.find(pd.read_csv(folder / "reports/stripes/runs.csv")["run_key"]).values()
        if run.run_id == version.run_id
    ]
    said = json.loads((folder / "reports/stripes/summary.json").read_text())
    assert run.tags["strategy"] == said["recommendation"]["strategy"]
    evidence = read.gather(store, read.newest(store, load(str(folder / "stripes.yaml")), "default")[0])
    own = evidence.done[evidence.done["strategy"] == run.tags["strategy"]]
    assert run.metrics["val/accuracy"] == own["val_accuracy"].max()
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
