"""A disk that is full while a study runs: one line, nothing lost, and the same numbers once there is room."""

import pytest

from tests.faults.test_kills import count_differences, ended_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_disk_that_fills_up_loses_nothing(bench, tmp_path, small_disk, jobs):
    expected = bench.finish(tmp_path / "undisturbed", "--jobs", jobs)
    (home, mount_again), log = small_disk, tmp_path / "log"
    for size in (2, 3, 5, 8):
        mount_again(f"size={size}m")
        process = bench.start(home, "--jobs", jobs, log=log)
        process.join(300)
        assert process.exitcode in {0, 2}, log.read_text()[-3000:]
        if size == 2:
            assert process.exitcode == 2, "it does not fit"
    mount_again("size=200m")
    found = bench.finish(home, "--jobs", jobs)
    assert "Traceback" not in log.read_text()
    assert any("No space left" in line or "disk is full" in line for line in log.read_text().splitlines())
    keys, running = ended_runs(home)
    assert running == 0
    assert len(keys) == len(set(keys))
    assert count_differences(expected, found) == (0, 0)
