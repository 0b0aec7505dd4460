"""A tiny real study, three classes of stripes and a small model with weights in a file; a small real disk."""

import os
import shutil
import subprocess

import pytest

from tests.support.tiny_bench import Bench
from tests.support.tiny_study import write_tiny_study


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a tiny study")
    write_tiny_study(folder)
    return Bench(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of its own, and a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)
