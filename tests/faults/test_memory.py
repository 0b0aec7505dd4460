"""A device without room for a batch: it is computed in micro-batches, and the run says so."""

import sqlite3
from contextlib import closing

import pytest

from tests.support.tiny_bench import memory_is_small

pytestmark = pytest.mark.slow


def test_a_batch_without_room_is_computed_in_micro_batches(bench, tmp_path):
    few = ("--jobs", "1", "--strategy", "full", "--trials", "1", "--seeds", "1", "--epochs", "2")
    runs, trials = bench.finish(tmp_path, *few, before=memory_is_small)
    assert list(runs["status"]) == list(trials["status"]) == ["done"]
    assert (
        "full: the device's memory is full; each batch in 2 micro-batches" in (tmp_path / "log").read_text()
    )
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        query = "select value from tags where key = 'bench.environment'"
        environments = [value for (value,) in database.execute(query)]
    assert len(environments) == 2
    assert all("each batch in 2 micro-batches, with accumulated gradients" in value for value in environments)
