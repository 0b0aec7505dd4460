"""Do jobs in processes of this machine; each has the device's threads to itself.

On a CPU several small runs side by side get more out of the cores than one run with all threads.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from bench.experiment.events import Message, OnEvent
from bench.experiment.scheduler.base import DoJob, Job, OnDone, Work
from bench.experiment.scheduler.outcomes import Done, LogToScheduler, Losses, Outcome, judged, outcome_of
from bench.system import signals, sockets

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

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
class ProcessScheduler:
    """Does jobs in `count` processes.

    Args:
        count: of processes.
        gpus: over which they are spread, as `CUDA_VISIBLE_DEVICES` names them; none: each sees them all.
    """

    count: int
    gpus: Sequence[str] = ()

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs: see `base.Scheduler`."""
        queue, losses = list(jobs), Losses(on_event)
        with _worker_pool(work, self.gpus) as pool:
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
                        losses.note(job, pool.reap(ready))
                        queue.insert(0, job)
                        continue
                    if not isinstance(message, Outcome):
                        on_event(message)
                    elif judged(job := busy.pop(ready), message):
                        on_done(job)
                    else:
                        queue.append(job)


class _WorkerPool:
    def __init__(self, work: Work, gpus: Sequence[str]) -> None:
        self.work, self.gpus = work, gpus
        self._gpu_of: dict[Connection, str] = {}
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
        environment = dict(os.environ)
        if self.gpus:
            used = Counter(self._gpu_of[connection] for connection in self.workers)
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_of[here] = min(self.gpus, key=used.__getitem__)
        process = self.context.Process(target=_worker, args=(there, environment, self.work), daemon=True)
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
def _worker_pool(work: Work, gpus: Sequence[str]) -> Iterator[_WorkerPool]:
    """Keep a pool; at the end, whatever the reason, no process of it is left."""
    pool = _WorkerPool(work, gpus)
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


def _worker(connection: Connection, environment: dict[str, str], work: Work) -> None:
    """Be a process of the pool: the environment is that of the parent now, not of the fork server's start."""
    os.environ.clear()
    os.environ.update(environment)
    signals.obey_parent()
    with suppress(*GONE, KeyboardInterrupt):
        logging.getLogger().addHandler(LogToScheduler(connection.send, GONE))
        do: DoJob | None = None

        def next_job() -> bool:
            nonlocal do
            do = do or work.open(connection.send)
            return do(connection.recv())

        while isinstance(outcome := outcome_of(next_job, GONE), Done):
            connection.send(outcome)
        connection.send(outcome)
