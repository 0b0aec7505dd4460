"""What measures the costs of the store runs."""

from benchmarks.durability import measure


def test_runs_that_wait_for_the_disk_are_timed_beside_runs_that_do_not(tmp_path):
    waiting, not_waiting = measure(tmp_path, 2)
    assert len(waiting) == len(not_waiting) == 2
    assert min(*waiting, *not_waiting) > 0
