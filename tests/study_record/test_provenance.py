"""Where the numbers of a study come from: results of different hardware are named as such."""

import json
from types import SimpleNamespace

import pytest

from bench.study_record.provenance import provenance_of_runs


def run_on(**environment):
    return SimpleNamespace(tags={"bench.environment": json.dumps(environment)}, ended=1_764_290_000_000)


@pytest.mark.parametrize(
    ("environments", "named"),
    [
        ([{"device": "cpu", "processor": "Xeon"}, {"device": "cpu", "processor": "Xeon"}], None),
        (
            [{"device": "cuda:0", "device_name": "H100"}, {"device": "cpu", "processor": "Xeon"}],
            ["cpu, Xeon", "cuda:0, H100"],
        ),
        ([], None),
    ],
    ids=["the same", "different", "nothing is done"],
)
def test_different_hardware_is_named(environments, named):
    store = SimpleNamespace(connection=SimpleNamespace(uri="sqlite:///a.db"))
    runs = [run_on(**environment) for environment in environments]
    found = provenance_of_runs(store, runs, 1.0)
    assert found.get("different hardware") == named
    assert found.get("date") == ("2025-11-28" if runs else None)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:////home/me/.bench/mlflow.db", "sqlite:mlflow.db"),
        ("file:///home/me/mlruns", "file:mlruns"),
        ("http://server:5000", "http://server:5000"),
    ],
)
def test_a_store_is_named_without_its_folders(uri, shown):
    store = SimpleNamespace(connection=SimpleNamespace(uri=uri))
    assert provenance_of_runs(store, [], 1.0)["tracking store"] == shown
