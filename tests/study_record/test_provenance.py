"""Where the numbers of a study come from: results of different hardware are named as such."""

import json
from types import SimpleNamespace

import pytest

from bench.study_record.provenance import provenance_of_runs


def run_on(**environment):
    return SimpleNamespace(tags={"bench.environment": json.dumps(environment)})


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
    assert provenance_of_runs(store, runs, 1.0).get("different hardware") == named
