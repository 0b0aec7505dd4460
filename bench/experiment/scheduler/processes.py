"""Do jobs in processes of this machine; each has the device's threads to itself.

On a CPU several small runs side by side get more out of the cores than one run with all threads.
"""

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from bench.core.errors import InputError
from bench.experiment.events import JobLost, Message, OnEvent
from bench.experiment.scheduler.base import Job, JobError, OnDone, Work
from bench.system import signals, sockets
from bench.system.notices import ONCE

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

MOST_DEATHS = 3  # of processes, over the same job
PRELOADED = (
    "bench.experiment.run_executor",
    "bench.tuning.tuner",
    "mlflow.store.tracking.sqlalchemy_store",
    "timm",
)
STOP_SECONDS = 10.0  # for a process to end by itself
SAVE_SECONDS = 60.0  # to finish a step, save it, and end
GONE = (EOFError, BrokenPipeError, ConnectionResetError)  # what a pipe raises whose other end has died


@dataclass(frozen=True)
class Done:
    """What a worker sends at the end of a job.

    Args:
        done: or another command is doing it.
    """

    done: bool


@dataclass(frozen=True)
class Refused:
    """What a worker sends if a job can't be done for a reason that the user can mend."""

    error: InputError


@dataclass(frozen=True)
class Crashed:
    """What a worker sends if a job raised what nobody foresaw."""

    traceback: str


@dataclass(frozen=True)
class ProcessScheduler:
    """Does jobs in `count` processes."""

    count: int

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs: see `base.Scheduler`."""
        queue, deaths = list(jobs), Counter[Job]()
        with _worker_pool(work) as pool:
            busy: dict[Connection, Job] = {}
            while queue or busy:
                while queue and len(busy) < self.count:
                    connection = pool.idle(busy, on_event)
                    busy[connection] = queue.pop(0)
                    with suppress(*GONE):  # one that has just died is seen below
                        connection.send(busy[connection])
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    try:
                        message = ready.recv()
                    except GONE:
                        job = busy.pop(ready)
                        _lose(job, pool.reap(ready), deaths, on_event)
                        queue.insert(0, job)
                        continue
                    if isinstance(message, Done):
                        job = busy.pop(ready)
                        if message.done:
                            on_done(job)
                        else:
                            queue.append(job)
                    elif isinstance(message, Refused):
                        raise message.error
                    elif isinstance(message, Crashed):
                        raise JobError(busy[ready], message.traceback)
                    else:
                        on_event(message)


def _lose(job: Job, ending: str, deaths: Counter[Job], on_event: OnEvent) -> None:
    """Note that a process died over a job; raise if that happens again and again."""
    deaths[job] += 1
    if deaths[job] == MOST_DEATHS:
        what = f"{MOST_DEATHS} processes died over one job, the last by {ending}"
        raise InputError(what, str(job), "with less memory per run, or --jobs 1?")
    on_event(JobLost(str(job), ending))


class _WorkerPool:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(PRELOADED))
        self.workers: dict[Connection, BaseProcess] = {}

    def idle(self, busy: Mapping[Connection, Job], on_event: OnEvent) -> Connection:
        """Return the connection of a process that has nothing to do; start one if there is none."""
        for connection in [connection for connection in self.workers if connection not in busy]:
            if self.workers[connection].is_alive():
                return connection
            ending = self.reap(connection)
            on_event(Message(f"bench: a process died while it had nothing to do ({ending}); it is replaced"))
        return self._start()

    def _start(self) -> Connection:
        sockets.make_room()
        here, there = self.context.Pipe()
        process = self.context.Process(target=_worker, args=(there, dict(os.environ), self.work), daemon=True)
        process.start()
        there.close()  # so that its end is seen here
        self.workers[here] = process
        return here

    def join(self, seconds: float) -> None:
        """Wait until all processes have ended, but no longer."""
        until = time.monotonic() + seconds
        for process in self.workers.values():
            process.join(max(0.0, until - time.monotonic()))

    def kill(self) -> None:
        """End what is left."""
        for process in self.workers.values():
            process.kill()
            process.join()

    def reap(self, connection: Connection) -> str:
        """Forget a process that died; return how it ended."""
        process = self.workers.pop(connection)
        connection.close()
        process.join(STOP_SECONDS)
        code = process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


@contextmanager
def _worker_pool(work: Work) -> Iterator[_WorkerPool]:
    """Keep a pool; at the end, whatever the reason, no process of it is left."""
    pool = _WorkerPool(work)
    try:
        yield pool
    except KeyboardInterrupt:
        for process in pool.workers.values():
            process.terminate()  # it finishes its step and saves it
        try:
            pool.join(SAVE_SECONDS)
        finally:
            pool.kill()
        raise
    finally:
        for connection in pool.workers:
            connection.close()  # what waits for a job, or tells something, ends by itself
        pool.join(STOP_SECONDS)
        pool.kill()


class _ToTheParent(logging.Handler):
    """Sends log lines to the process that shows the study: written here they would garble its table."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as one line."""
        with suppress(*GONE):  # nobody listens any more, which the worker sees next
            text = " ".join(self.format(record).splitlines())
            self._connection.send(Message(text, once=getattr(record, ONCE, False)))


def _worker(connection: Connection, environment: dict[str, str], work: Work) -> None:
    """Be a process of the pool: the environment is that of the parent now, not of the fork server's start."""
    os.environ.clear()
    os.environ.update(environment)
    signals.obey_parent()
    with suppress(*GONE, KeyboardInterrupt):
        try:
            logging.getLogger().addHandler(_ToTheParent(connection))
            do = work.open(connection.send)
            while True:
                connection.send(Done(do(connection.recv())))
        except GONE:
            raise
        except InputError as error:
            connection.send(Refused(error))
        except OSError as error:  # a disk that is full: no other process would do better
            connection.send(Refused(InputError(error.strerror or str(error), str(error.filename or ""))))
        except Exception:  # noqa: BLE001 - whatever it is, the parent raises it
            connection.send(Crashed(traceback.format_exc()))
