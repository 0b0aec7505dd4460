"""Do jobs on a Ray cluster, as tasks of Ray Core; the only user of Ray.

Ray starts processes where there is room and says which of them died. All else is as on one machine: the run
store is the only truth, and this process, the driver, hands out the jobs. Resources are counted and not
enforced: a share of a GPU or of memory isolates nothing (https://docs.ray.io, "Resources").
"""

import logging
import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.core.errors import InputError
from bench.experiment.events import Event, OnEvent
from bench.experiment.scheduler.base import DoJob, Job, OnDone, Work
from bench.experiment.scheduler.capacity import bytes_of_a_process
from bench.experiment.scheduler.outcomes import (
    Crashed,
    LogToScheduler,
    Losses,
    Outcome,
    Refused,
    judged,
    outcome_of,
)
from bench.system.provenance import library_versions

LOOK_SECONDS = 0.5  # between two looks at what happens
CONNECT_SECONDS = 5.0
SAVE_SECONDS = 60.0  # for jobs to finish a step, save it, and end
STOP_SECONDS = 10.0  # for a job to end without
ENDINGS = {
    "WorkerCrashedError": "a crash",
    "NodeDiedError": "the loss of its node",
    "LocalRayletDiedError": "the loss of its node",
    "OutOfMemoryError": "lack of memory",
}
START = "start one with `ray start --head`, or give its address"


@dataclass(frozen=True)
class Share:
    """What each job gets of a cluster.

    Args:
        device: `cpu` or `cuda`: Ray shows a job its own GPU only.
        threads: of the job, each on a processor of its own.
        gpus: 0 or 1.
        memory: in bytes.
        at_once: how many jobs the cluster has room for now.
    """

    device: str
    threads: int
    gpus: int
    memory: float
    at_once: int


def connect(address: str) -> None:
    """Connect this process to a cluster, once.

    Args:
        address: `auto` for the one of this machine, `HOST:PORT` of the head of one that this machine is in,
            or `ray://HOST:PORT` from anywhere.

    Raises:
        InputError: if Ray is not installed, or no such cluster answers.
    """
    try:
        import ray
    except ModuleNotFoundError:
        remedy = "pip install 'transfer-bench[ray]'"
        raise InputError("Ray is not installed", "--cluster", remedy) from None
    if ray.is_initialized():
        return
    _require_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with chdir("/"):  # Ray lets all workers import from the driver's folder, which may be a stranger's
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(f"no Ray cluster could be joined: {why}", f"--cluster {address}", START) from error


def _require_answer(address: str) -> None:
    """Raise InputError at once, where Ray would try for a minute, if nobody listens at an address."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"gcs://{address}")
        host, port, is_known = parts.hostname, parts.port, parts.scheme in {"ray", "gcs"}
    except ValueError:
        host, port, is_known = None, None, False
    if not (host and port and is_known):
        remedy = "say auto, HOST:PORT or ray://HOST:PORT"
        raise InputError(f"'{address}' is not the address of a Ray cluster", "--cluster", remedy)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"nobody answers there ({why})", f"--cluster {address}", START) from error


def share_of(device: str, pixels: int, most: int) -> Share:
    """Return what each job gets of the cluster that is connected.

    Args:
        device: the user's; `auto` is GPUs if the cluster has any.
        pixels: in a training batch.
        most: how many jobs there are to do side by side.

    Raises:
        InputError: for a GPU where there is none, or one by its number, which Ray chooses.
    """
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    if device.startswith("cuda:"):
        raise InputError("Ray chooses the GPU of each job", f"--device {device}", "say cuda")
    if device == "cuda" and not gpus:
        raise InputError("the cluster has no GPU", "--device cuda", "say cpu, or add a node with one")
    memory = bytes_of_a_process(pixels)
    if gpus and device != "cpu":
        return Share("cuda", max(1, cpus // gpus), 1, memory, min(gpus, most))
    room = min(cpus, int(total.get("memory", 0) // memory))
    return Share("cpu", 1, 0, memory, max(1, min(room, most)))


@dataclass(frozen=True)
class RayScheduler:
    """Does jobs on the cluster that is connected.

    Args:
        share: what each gets.
        most: at once; None: as many as there is room for.
    """

    share: Share
    most: int | None = None

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs: see `base.Scheduler`."""
        import ray

        self._check_nodes(work)
        channel: Any = ray.remote(_Channel).options(num_cpus=0, max_restarts=-1).remote()
        parcel, name, here = ray.put(work), uuid.uuid4().hex, str(Path.cwd())
        do = ray.remote(_do).options(**self._resources, max_retries=0)
        queue, losses = deque(jobs), Losses(on_event)
        busy: dict[Any, Job] = {}
        try:
            while queue or busy:
                while queue and (self.most is None or len(busy) < self.most):
                    job = queue.popleft()
                    busy[do.remote(here, name, parcel, job, channel)] = job
                ready, _ = ray.wait(list(busy), timeout=LOOK_SECONDS)
                if ready:  # all that are: what is free has its next job before events are asked for again
                    ready, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
                _pass_on(channel, on_event)
                for task in ready:
                    job = busy.pop(task)
                    outcome = _ending(task)
                    if isinstance(outcome, str):
                        losses.note(job, outcome)
                        queue.appendleft(job)
                    elif judged(job, outcome):
                        on_done(job)
                    else:
                        queue.append(job)
        except BaseException as error:
            _stop(list(busy), SAVE_SECONDS if isinstance(error, KeyboardInterrupt) else STOP_SECONDS)
            raise
        finally:
            with suppress(ray.exceptions.RayError):
                ray.kill(channel)

    @property
    def _resources(self) -> dict[str, Any]:
        share = self.share
        return {"num_cpus": share.threads, "num_gpus": share.gpus, "memory": share.memory}

    def _check_nodes(self, work: Work) -> None:
        """Have each node make ready what its jobs share, once; InputError for the first that can't."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        checks = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"] and node["Resources"].get("CPU"):
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                check = ray.remote(_check).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
                checks[check.remote(str(Path.cwd()), work, library_versions())] = str(
                    node["NodeManagerAddress"]
                )
        if not checks:
            raise InputError("the cluster has no node with a processor", "--cluster", "add one")
        for task, address in checks.items():
            try:
                outcome = ray.get(task)
            except ray.exceptions.RayError as error:
                why = str(error).strip().rpartition("\n")[2]
                remedy = "install there what is installed here"
                raise InputError(f"bench could not be started ({why})", f"node {address}", remedy) from error
            if isinstance(outcome, Refused):
                own = outcome.error
                raise InputError(own.what, f"node {address}: {own.where}".rstrip(": "), own.remedy)
            if isinstance(outcome, Crashed):
                raise RuntimeError(f"node {address}:\n{outcome.traceback}")  # noqa: TRY004 - no type is wrong


def _ending(task: Any) -> Outcome | str:
    """Return what a task gave, or in words how its process died."""
    import ray

    try:
        outcome: Outcome = ray.get(task)
    except ray.exceptions.RayError as error:
        return ENDINGS.get(type(error).__name__, type(error).__name__)
    return outcome


def _pass_on(channel: Any, on_event: OnEvent) -> None:
    """Pass on what was said since; a channel whose node died is started anew by Ray, and was no result."""
    import ray

    events: list[Event] = []
    with suppress(ray.exceptions.RayError):
        events = ray.get(channel.take.remote(), timeout=CONNECT_SECONDS)
    for event in events:
        on_event(event)


def _stop(tasks: list[Any], seconds: float) -> None:
    """Interrupt tasks as Ctrl-C does, wait for them to end, and end what is left."""
    import ray

    for task in tasks:
        with suppress(Exception):  # one that has ended, or a cluster that is gone
            ray.cancel(task, force=False)
    with suppress(Exception):
        _, left = ray.wait(tasks, num_returns=len(tasks), timeout=seconds)
        for task in left:
            ray.cancel(task, force=True)


class _Channel:
    """An actor through which workers say what happens."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _check(folder: str, work: Work, versions: Mapping[str, str]) -> Outcome:
    """Say whether jobs can be done on this node, in the driver's folder if that is there."""

    def check() -> bool:
        _go_to(folder)
        own = library_versions()
        for name, version in versions.items():
            if own.get(name) != version:
                what = f"{name} is {own.get(name, 'not there')} there, and {version} here"
                raise InputError(what, "", "install the same versions on every node")
        work.check()
        return True

    return outcome_of(check)


class _Sender:
    """Sends events of this worker process to the channel, in order."""

    channel: Any = None
    _last: Any = None

    def send(self, event: Event) -> None:
        self._last = self.channel.put.remote(event)

    def wait(self) -> None:
        """Wait until what was sent has arrived, so that it is known before the job's end is."""
        import ray

        if self._last is not None:
            with suppress(ray.exceptions.RayError):
                ray.get(self._last, timeout=CONNECT_SECONDS)


_sender = _Sender()
_opened: dict[str, DoJob] = {}  # the newest work of this process


def _do(folder: str, name: str, work: Work, job: Job, channel: Any) -> Outcome:
    """Do a job in this worker process of Ray's, where `name` says which work is open: see `_check`."""

    def do() -> bool:
        if name not in _opened:
            _opened.clear()
            _go_to(folder)
            _sender.channel = channel
            _log_to(_sender.send)
            _opened[name] = work.open(_sender.send)
        return _opened[name](job)

    outcome = outcome_of(do)
    _sender.wait()
    return outcome


def _go_to(folder: str) -> None:
    with suppress(OSError):  # another machine need not have it, if nothing in the study is relative to it
        os.chdir(folder)


def _log_to(send: Callable[[Event], None]) -> None:
    """Let log lines of this process go to the driver, which shows them once."""
    root = logging.getLogger()
    for handler in [own for own in root.handlers if isinstance(own, LogToScheduler)]:
        root.removeHandler(handler)
    root.addHandler(LogToScheduler(send, (Exception,)))
