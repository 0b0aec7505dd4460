"""What a scheduler is: it does the jobs of a study, wherever that is, and says what happens meanwhile.

Nothing here assumes that jobs are done on this machine: `Work` is sent to where they are done, and all that
comes back are a job's result and events, both plain values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.core.runs import Value
from bench.experiment.events import OnEvent


@dataclass(frozen=True)
class Job:
    """A part of a study that is done in one place: the tuning of an arm, or its final runs of some seeds.

    Args:
        strategy: the arm's.
        seeds: of the final runs; none: it is the tuning.
        params: the hyperparameters of the final runs, which tuning chose.
    """

    strategy: str
    seeds: tuple[int, ...] = ()
    params: Mapping[str, Value] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.strategy}, {'seed ' + ' '.join(map(str, self.seeds)) if self.seeds else 'tuning'}"


@dataclass(frozen=True)
class JobResult:
    """What a job gives: the jobs that are possible now that it is done."""

    next_jobs: tuple[Job, ...] = ()


DoJob = Callable[[Job], JobResult | None]  # None: another command is doing it, so ask again later
OnDone = Callable[[Job, JobResult], Sequence[Job]]  # returns the jobs that are possible now


class Work(Protocol):
    """How jobs are done. It can be pickled, and is opened once in each place where any are done."""

    def open(self, emit: OnEvent) -> DoJob:
        """Make ready what jobs need; return what does one.

        Args:
            emit: passes what happens on to whoever scheduled the jobs.
        """


class Scheduler(Protocol):
    """Does jobs."""

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs, and all that become possible; return when none is left.

        A job whose result is None is asked for again after the rest. One whose process dies is done anew,
        some few times; one that raises is not, since it would raise again.

        Args:
            jobs: to begin with, the longest first.
            work: how they are done.
            on_done: called by the caller's thread after each job.
            on_event: called by the caller's thread with all that happens.

        Raises:
            InputError: one that a job raised, or if processes die over the same job again and again.
            JobError: if a job raised anything else in another process.
        """


class JobError(Exception):
    """A job raised what nobody foresaw, in another process: its traceback is the message."""

    def __init__(self, job: Job, traceback: str) -> None:
        super().__init__(f"{job}:\n{traceback}")
