"""A lease on a study: one of several holds it, the next gets it, and one that died is taken over."""

import threading
import time
from dataclasses import replace

import pytest

from bench.core.errors import InputError
from bench.tracking.lease import PREFIX, Lease
from bench.tracking.store import open_store

SHORT = {"renewal_seconds": 0.1, "stale_seconds": 0.6, "pause_seconds": 0.2}


@pytest.fixture
def connections(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return [open_store(uri, "bench/leased", create=True).connection for _ in range(3)]


def left(connection):
    tags = connection.client.get_experiment(connection.experiment_id).tags
    return [name for name in tags if name.startswith(PREFIX)]


def test_one_at_a_time(connections):
    holding, most, said = [], [], []

    def hold(connection):
        with Lease(connection, "leased", said.append, **SHORT):
            holding.append(connection)
            most.append(len(holding))
            time.sleep(0.5)
            holding.remove(connection)

    threads = [threading.Thread(target=hold, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1, 1, 1]
    assert any("waiting for another command that runs this study, on" in line for line in said)
    assert left(connections[0]) == []


def test_a_driver_that_does_not_answer_any_more_is_taken_over_and_told(connections):
    first = Lease(connections[0], "leased", print, **(SHORT | {"renewal_seconds": 99}))
    with first:
        began = time.monotonic()
        with Lease(connections[1], "leased", print, **SHORT):
            assert time.monotonic() - began > SHORT["stale_seconds"]
            first.check()
            first._renew_once()
            with pytest.raises(InputError, match="another command took the study leased over"):
                first.check()
    assert left(connections[0]) == []


def test_the_claim_of_a_process_that_has_ended_keeps_nobody_waiting(connections):
    dead = Lease(connections[0], "leased", print, **SHORT)
    with dead:
        claim = replace(dead._claim, owner="dead", process="host:1:0", since=0.0)
    here = claim.process.replace("host", dead._claim.process.split(":")[0]).replace(":1:", ":999999:")
    dead._write(replace(claim, process=here))
    said = []
    with Lease(connections[1], "leased", said.append, **(SHORT | {"stale_seconds": 99})):
        assert said == []
    assert left(connections[0]) == []
