"""Jobs on a Ray cluster of one node: the scheduler's protocol, and one clear line for what can't be."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.experiment.events import JobLost, Message
from bench.experiment.scheduler import cluster
from bench.experiment.scheduler.base import Job, JobError
from bench.experiment.scheduler.cluster import RayScheduler, Share, connect, share_of
from tests.experiment.test_scheduler import JOBS, NAMES, Dying, Raising, Recording
from tests.support.ray_nodes import running_nodes
from tests.support.tracking_contract import free_port

ray = pytest.importorskip("ray", reason="Ray is not installed: no cluster is tried")
pytestmark = pytest.mark.slow

SHARE = Share("cpu", 1, 0, 1.0, 2)


@dataclass(frozen=True)
class Checked:
    """Work that can be done on the node, or can't, for a reason."""

    work: object
    reason: str = ""

    def check(self):
        if self.reason:
            raise InputError(self.reason, "images", "mount it")

    def open(self, emit):
        return self.work.open(emit)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with running_nodes(tmp_path_factory.mktemp("nodes"), cpus=2) as nodes:
        connect(nodes.address)
        yield nodes
        ray.shutdown()


def do(work, jobs=JOBS, reason=""):
    seen, events = [], []
    RayScheduler(SHARE).run(jobs, Checked(work, reason), seen.append, events.append)
    return seen, events


def test_every_job_is_done_once_on_the_node(nodes, tmp_path):
    seen, events = do(Recording(str(tmp_path)))
    lines = [line.rsplit(" ", 3) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == len(JOBS)
    assert sorted(map(str, seen)) == sorted(event.text for event in events) == NAMES
    numbers = {line[0].split(" ")[0] for line in lines}
    assert str(os.getpid()) not in numbers
    assert all(str(nodes.folder / "head") in line[0] for line in lines)


def test_a_process_that_dies_is_replaced_and_its_job_done(nodes, tmp_path):
    seen, events = do(Dying(str(tmp_path), 2))
    assert sorted(map(str, seen)) == NAMES
    assert [type(event) for event in events] == [JobLost] * 2
    assert {event.ending for event in events} == {"a crash"}


def test_a_job_that_kills_again_and_again_is_given_up(nodes, tmp_path):
    with pytest.raises(InputError, match="seed 2: 3 processes died over one job, the last by a crash"):
        do(Dying(str(tmp_path), 99), [Job("full", 2)])


def test_what_a_job_raises_is_raised_once_and_not_tried_again(nodes):
    with pytest.raises(JobError, match=r"full, seed 1:\n(.*\n)*ZeroDivisionError: by nothing"):
        do(Raising(ZeroDivisionError, ("by nothing",)), JOBS[:1])


def test_an_input_error_arrives_as_it_was_raised(nodes):
    with pytest.raises(InputError) as caught:
        do(Raising(InputError, ("no such thing", "here", "try another")), JOBS[:1])
    assert (caught.value.what, caught.value.where, caught.value.remedy) == (
        "no such thing",
        "here",
        "try another",
    )


def test_a_node_that_lacks_something_is_named_before_any_job(nodes, tmp_path):
    with pytest.raises(InputError, match=r"node [\d.]+: images: there is no folder; mount it"):
        do(Recording(str(tmp_path)), reason="there is no folder")
    assert not (tmp_path / "log").exists()


def test_a_node_with_another_version_is_named_before_any_job(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "library_versions", lambda: {"torch": "0.1"})
    with pytest.raises(InputError, match=r"node [\d.]+: torch is 2\S+ there, and 0.1 here; install the same"):
        do(Recording(str(tmp_path)))
    assert not (tmp_path / "log").exists()


def test_no_worker_imports_from_the_folder_of_the_driver(nodes, tmp_path, monkeypatch):
    """What lies there may be a stranger's."""
    (tmp_path / "statistics.py").write_text("raise SystemExit('a trap')")
    monkeypatch.chdir(tmp_path)
    seen, events = do(Importing(), JOBS[:1])
    assert seen == JOBS[:1]
    assert events == [Message("False")]


class Importing:
    """Say whether a module is the one of the current folder."""

    def open(self, emit):
        def do(_job):
            import sys

            emit(Message(str(str(Path.cwd()) in sys.path)))
            return True

        return do


def test_a_share_is_what_the_cluster_has(nodes):
    assert share_of("auto", 1, 10).at_once == 2
    assert share_of("cpu", 1, 1) == Share("cpu", 1, 0, pytest.approx(1.5e9, rel=0.01), 1)
    with pytest.raises(InputError, match="--device cuda: the cluster has no GPU"):
        share_of("cuda", 1, 10)
    with pytest.raises(InputError, match="Ray chooses the GPU"):
        share_of("cuda:1", 1, 10)


@pytest.mark.parametrize("address", ["head", "http://127.0.0.1:6379", "127.0.0.1", "ray://:1", "[:1"])
def test_what_is_no_address_is_said(address, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        InputError, match="is not the address of a Ray cluster; say auto, HOST:PORT or ray://"
    ):
        connect(address)


def test_a_cluster_that_is_not_there_is_said_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"nobody answers there .*; start one with `ray start --head`"):
        connect(f"127.0.0.1:{free_port()}")
