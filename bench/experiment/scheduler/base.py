"""What a scheduler is: it does the jobs of a study, wherever that is, and says what happens meanwhile.

Nothing here assumes that jobs are done on this machine: `Work` is sent to where they are done, and all that
comes back is that a job is done, and events, which are plain values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.experiment.events import OnEvent


@dataclass(frozen=True)
class Job:
    """A part of a study that is done in one place: one seed of one arm, its tuning and its final run."""

    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.strategy}, seed {self.seed}"


DoJob = Callable[[Job], bool]  # False: another command is doing it, so ask again later
OnDone = Callable[[Job], None]


class Work(Protocol):
    """How jobs are done. It can be pickled, and is opened once in each place where any are done."""

    def check(self) -> None:
        """Make ready what all jobs of a machine share; InputError if none can be done there.

        Asked once of each machine, where there are several.
        """

    def open(self, emit: OnEvent) -> DoJob:
        """Make ready what jobs need; return what does one.

        Args:
            emit: passes what happens on to whoever scheduled the jobs.
        """


class Scheduler(Protocol):
    """Does jobs."""

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs; return when none is left.

        A job that another command is doing is asked for again after the rest. One whose process dies is done
        anew, some few times; one that raises is not, since it would raise again.

        Args:
            jobs: those that are to begin first come first.
            work: how they are done.
            on_done: called by the caller's thread after each job.
            on_event: called by the caller's thread with what happens; some of it is lost with a machine.

        Raises:
            InputError: one that a job raised, or if processes die over the same job again and again.
            JobError: if a job raised anything else in another process.
        """


class JobError(Exception):
    """A job raised what nobody foresaw, in another process: its traceback is the message."""

    def __init__(self, job: Job, traceback: str) -> None:
        super().__init__(f"{job}:\n{traceback}")
