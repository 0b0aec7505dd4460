"""Share out the jobs of a study among processes; each has the device's threads to itself.

On a CPU several small runs side by side get more out of the cores than one run with all threads.
"""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.system import cgroups, signals
from bench.system.hardware import usable_cpus

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

MOST_DEATHS = 3  # of processes, over the same job
BYTES_OF_A_PROCESS = 1.5e9  # torch, mlflow, a small model and its optimizer
BYTES_OF_A_PIXEL = 3200  # of a training batch: a ViT-B or a ConvNeXt-B, what the backward pass needs of it
PRELOADED = [
    "bench.experiment.run_executor",
    "bench.tuning.tuner",
    "mlflow.store.tracking.sqlalchemy_store",
    "timm",
]
STOP_SECONDS = 10.0  # for a process to end by itself
SAVE_SECONDS = 60.0  # to finish a step, save it, and end


@dataclass(frozen=True)
class Job:
    """A part of a study that one process does: the tuning of an arm, or the final runs of some seeds."""

    strategy: str
    seeds: tuple[int, ...] = ()  # none: tuning

    def __str__(self) -> str:
        return f"{self.strategy}, {'seed ' + ' '.join(map(str, self.seeds)) if self.seeds else 'tuning'}"


Done = Callable[[Job, Any], Sequence[Job]]  # a job and what it gave, to the jobs that are possible now
Messages = Callable[[str, tuple[Any, ...]], None]


def choose_count(wish: int | None, device: str, jobs: int, pixels: int, groups: Path = cgroups.GROUPS) -> int:
    """Return how many processes to use: the wish, or on a CPU as many as cores, memory and jobs allow.

    Args:
        wish: of the user; None leaves it to this function.
        device: the user's; `auto` is a GPU if the driver shows one.
        jobs: how many there are to do side by side.
        pixels: in a training batch.
        groups: where the limits of control groups are.
    """
    if wish is not None:
        return max(1, min(wish, jobs))
    if device.startswith("cuda") or (device == "auto" and Path("/dev/nvidiactl").exists()):
        return 1
    import psutil

    each = BYTES_OF_A_PROCESS + BYTES_OF_A_PIXEL * pixels
    free = min(psutil.virtual_memory().available, cgroups.free_memory(groups))
    return max(1, min(usable_cpus(groups), int(free // each), jobs))


def in_turn(jobs: Sequence[Job], do: Callable[[Job], Any], done: Done) -> None:
    """Do all jobs in this process, one after the other; what becomes possible comes before the rest.

    One that gives None is being done elsewhere: it is asked for again after the rest.
    """
    left = list(jobs)
    while left:
        job = left.pop(0)
        outcome = do(job)
        left = [*left, job] if outcome is None else [*done(job, outcome), *left]


def side_by_side(
    jobs: Sequence[Job],
    count: int,
    serve: Callable[..., None],
    arguments: tuple[Any, ...],
    done: Done,
    note: Messages,
) -> None:
    """Do all jobs in `count` processes. One that dies is replaced and its job taken up again.

    A job that gives None is being done elsewhere: it is asked for again after the rest.

    Args:
        jobs: to begin with, the longest first; what becomes possible later comes after them.
        count: of processes.
        serve: called in each process with a `Channel` and `arguments`.
        arguments: picklable.
        done: called here after each job.
        note: takes what the processes say with `Channel.note`.

    Raises:
        InputError: one that a job raised, or if processes die over the same job again and again.
    """
    left, deaths = list(jobs), Counter[Job]()
    with _crew(serve, arguments) as crew:
        busy: dict[Connection, Job] = {}
        while left or busy:
            while left and len(busy) < count:
                job = left.pop(0)
                connection = crew.idle(busy)
                connection.send(job)
                busy[connection] = job
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    kind, value = ready.recv()
                except (EOFError, ConnectionResetError):
                    job, ending = busy.pop(ready), crew.bury(ready)
                    deaths[job] += 1
                    if deaths[job] == MOST_DEATHS:
                        what = f"{MOST_DEATHS} processes died over one job, the last by {ending}"
                        raise InputError(what, str(job), "with less memory per run, or --jobs 1?") from None
                    note("say", (f"bench: a process died ({ending}); its job is taken up again: {job}",))
                    left.insert(0, job)
                    continue
                if kind == "done":
                    job = busy.pop(ready)
                    left += [job] if value is None else done(job, value)
                elif kind == "error":
                    raise InputError(*value)
                else:
                    note(kind, value)


class Channel:
    """What a process of the crew has of the others: the jobs that it is given, and a way to say something."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def note(self, name: str, values: tuple[Any, ...]) -> None:
        """Say something that is not the end of a job."""
        self._connection.send((name, values))

    def jobs(self, do: Callable[[Job], Any]) -> None:
        """Do what is asked for until there is no more."""
        while True:
            self._connection.send(("done", do(self._connection.recv())))


class _Crew:
    def __init__(self, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.serve, self.arguments = serve, arguments
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.members: dict[Connection, BaseProcess] = {}

    def idle(self, busy: Mapping[Connection, Job]) -> Connection:
        """Return the connection of a process that has nothing to do; start one if there is none."""
        for connection, process in self.members.items():
            if connection not in busy and process.is_alive():
                return connection
        here, there = self.context.Pipe()
        process = self.context.Process(
            target=_member, args=(there, dict(os.environ), self.serve, self.arguments), daemon=True
        )
        process.start()
        there.close()  # so that its end is seen here
        self.members[here] = process
        return here

    def join(self, seconds: float) -> None:
        """Wait until all processes have ended, but no longer."""
        until = time.monotonic() + seconds
        for process in self.members.values():
            process.join(max(0.0, until - time.monotonic()))

    def kill(self) -> None:
        """End what is left."""
        for process in self.members.values():
            process.kill()
            process.join()

    def bury(self, connection: Connection) -> str:
        """Forget a process that died; return how it ended."""
        process = self.members.pop(connection)
        connection.close()
        process.join(STOP_SECONDS)
        code = process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


@contextmanager
def _crew(serve: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[_Crew]:
    """Keep a crew; at the end, whatever the reason, no process of it is left."""
    crew = _Crew(serve, arguments)
    try:
        yield crew
    except KeyboardInterrupt:
        for process in crew.members.values():
            process.terminate()  # it finishes its step and saves it
        try:
            crew.join(SAVE_SECONDS)
        finally:
            crew.kill()
        raise
    finally:
        for connection in crew.members:
            connection.close()  # what waits for a job, or tells something, ends by itself
        crew.join(STOP_SECONDS)
        crew.kill()


def _member(
    connection: Connection,
    environment: dict[str, str],
    serve: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Be a process of the crew: the environment is that of the parent now, not of the fork server's start."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent says when to stop
    signal.signal(signal.SIGTERM, signals.stop)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        try:
            serve(Channel(connection), *arguments)
        except InputError as error:
            connection.send(("error", (error.what, error.where, error.remedy)))
        except OSError as error:  # a disk that is full: no other process would do better
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise
            connection.send(("error", (error.strerror or str(error), str(error.filename or ""), "")))
