"""A run store that can't be made is one line: a full disk, a limit of files, a path that is too long."""

import subprocess
import sys

import pytest

from bench.core.errors import InputError
from bench.tracking.store import open_study_store

CODE = """
import resource
from bench.core.errors import InputError
from bench.tracking.store import open_study_store
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    open_study_store(None, "bench/a")
except InputError as error:
    print(error)
"""


def test_a_limit_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert f"sqlite:///{tmp_path}/mlflow.db: the run store can't be opened: " in done.stdout
    assert not list(tmp_path.glob("*.tmp"))


def test_a_home_of_800_letters(tmp_path, monkeypatch):
    home = tmp_path.joinpath(*["x" * 200] * 4)
    monkeypatch.setenv("BENCH_HOME", str(home))
    with pytest.raises(InputError, match="the run store can't be opened: "):
        open_study_store(None, "bench/a")
