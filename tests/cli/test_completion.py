"""What the shell is offered behind a command."""

import os
import subprocess
import sys

import pytest

from bench.cli import completion
from bench.study.loading import load
from bench.study_record.facts import flat


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/train", "photos/test", ".hidden", "small things"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("mine.yaml", "table.csv", "notes.txt", "photos/labels.csv"):
        (tmp_path / file).touch()
    return tmp_path


def test_studies_folders_and_tables(here):
    assert completion.subjects("sma") == ["small_different", "small_similar", "small things/"]
    assert completion.subjects("photos/") == ["photos/labels.csv", "photos/test/", "photos/train/"]
    assert completion.subjects("photos/tr") == ["photos/train/"]
    assert {"all", "small_similar", "mine.yaml", "table.csv", "photos/"} <= set(completion.subjects(""))
    assert not {"notes.txt", ".hidden/"} & set(completion.subjects(""))
    assert completion.subjects(".h") == [".hidden/"]
    assert completion.subjects("nowhere/x") == []
    assert "table.csv" not in completion.studies("")


def test_the_last_strategy_of_a_list():
    assert completion.strategies("feat") == ["feature_extractor"]
    assert completion.strategies("full,feat") == ["full,feature_extractor"]
    assert "full,full" not in completion.strategies("full,")
    assert "full,scratch" in completion.strategies("full,")


def test_every_key_of_every_setting():
    assert completion.settings("training.st") == [
        "training.steps=",
        "training.step_every=",
        "training.step_factor=",
    ]
    assert completion.settings("seeds") == ["seeds="]
    known = set(flat(load("small_similar").model_dump(mode="json")))
    offered = set(completion.setting_keys())
    assert {key for key in known if not key.startswith(("scenario.", "seeds."))} <= offered | {"scenario"}


def test_devices():
    assert completion.devices("cu") == ["cuda", "cuda:0"]


def test_the_shell_gets_them():
    environment = {
        **os.environ, "_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "bench run small_similar --strategy linear_", "COMP_CWORD": "4",
    }  # fmt: skip
    script = "import sys; sys.argv[0] = 'bench'; from bench.cli.app import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shown.stdout.split() == ["linear_probe"], shown.stderr
