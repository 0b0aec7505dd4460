"""A disk that is full while a study runs: one line, nothing lost, and the same numbers once there is room."""

import os
import shutil
import subprocess

import pytest
from test_kills import count_differences, ended_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a real file system a size in megabytes, and its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}m", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_disk_that_fills_up_loses_nothing(bench, tmp_path, small_disk, jobs):
    expected = bench.finish(tmp_path / "undisturbed", "--jobs", jobs)
    (home, resize), log = small_disk, tmp_path / "log"
    for size in (2, 3, 5, 8):
        resize(size)
        process = bench.start(home, "--jobs", jobs, log=log)
        process.join(300)
        assert process.exitcode in {0, 2}, log.read_text()[-3000:]
        if size == 2:
            assert process.exitcode == 2, "it does not fit"
    resize(200)
    found = bench.finish(home, "--jobs", jobs)
    assert "Traceback" not in log.read_text()
    assert any("space" in line or "full" in line for line in log.read_text().splitlines())
    keys, running = ended_runs(home)
    assert running == 0
    assert len(keys) == len(set(keys))
    assert count_differences(expected, found) == (0, 0)
