"""A SQLite store that can only be read, as another user's may be, is read from a copy."""

import json
import subprocess
import sys
import urllib.request

import pytest

from bench.tracking.store import open_store
from tests.support.tracking_contract import open_levels, record, serving, spec
from tests.support.unprivileged import only_to_read, unprivileged

CODE = """
import sys
from bench.core.errors import InputError
from bench.tracking.store import open_store
for to_read in (True, False):
    try:
        print(len(open_store(sys.argv[1], "toy", to_read=to_read).reader.find(sys.argv[2:])))
    except InputError as error:
        print(error)
"""


@pytest.fixture(params=["its owner has it open", "nobody has it open"])
def home(request, tmp_path):
    """A home that can only be read, with a store of one final run."""
    folder = tmp_path / "home"
    store = open_store(f"sqlite:///{folder}/mlflow.db", "toy", create=True)
    _, arm = open_levels(store)
    record(store, arm, spec(seed=1))
    if request.param == "nobody has it open":
        store.connection.client.database.engine.dispose()
    assert (folder / "mlflow.db-wal").exists() == (request.param == "its owner has it open")
    with only_to_read(folder):
        yield folder


def asked(home):
    """What a process without the right to write there gets of the run, once to read and once to change it."""
    command = [sys.executable, "-c", CODE, f"sqlite:///{home}/mlflow.db", spec(seed=1).key]
    result = subprocess.run([*unprivileged(), *command], capture_output=True, text=True, check=True)
    return result.stdout.splitlines(), result.stderr


def test_its_runs_are_read_and_it_is_said_that_it_is_a_copy(home):
    (found, refused), errors = asked(home)
    assert found == "1"
    assert "the run store can't be opened" in refused
    assert f"{home}/mlflow.db can only be read; the report is of a copy of what it holds now" in errors


@pytest.mark.slow
def test_its_runs_are_shown_from_a_copy(home, tmp_path):
    before = sorted(home.rglob("*"))
    with serving(f"sqlite:///{home}/mlflow.db", tmp_path, unprivileged()) as (_, page):
        asked = urllib.request.Request(
            f"{page.partition('/#')[0]}/api/2.0/mlflow/runs/search",
            json.dumps({"experiment_ids": ["1"], "filter": "tags.purpose = 'final'"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            (run,) = json.load(answer)["runs"]
    assert run["info"]["status"] == "FINISHED"
    assert sorted(home.rglob("*")) == before
