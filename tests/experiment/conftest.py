"""A tiny study that is run in this process."""

import pytest

from tests.support.tiny_study import write_tiny_study


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a tiny study")
    write_tiny_study(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder, monkeypatch):
    """The study's file, in the current folder."""
    monkeypatch.chdir(tiny_folder)
    return "tiny.yaml"
