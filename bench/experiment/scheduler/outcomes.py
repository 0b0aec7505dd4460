"""How a job ended in another process, as plain values; and what a process says meanwhile."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from bench.core.errors import InputError
from bench.experiment.events import JobLost, Message, OnEvent
from bench.experiment.scheduler.base import Job, JobError
from bench.system.notices import ONCE

MOST_DEATHS = 3  # of processes, over the same job


@dataclass(frozen=True)
class Done:
    """A job came to its end.

    Args:
        done: or another command is doing it.
    """

    done: bool


@dataclass(frozen=True)
class Refused:
    """A job can't be done for a reason that the user can mend."""

    error: InputError


@dataclass(frozen=True)
class Crashed:
    """A job raised what nobody foresaw."""

    traceback: str


Outcome = Done | Refused | Crashed


def outcome_of(do: Callable[[], bool], unheard: tuple[type[Exception], ...] = ()) -> Outcome:
    """Do a job and return how it ended.

    Args:
        do: the job; False: another command is doing it.
        unheard: what is raised where nobody listens any more; it passes.
    """
    try:
        return Done(do())
    except unheard:
        raise
    except InputError as error:
        return Refused(error)
    except OSError as error:  # a disk that is full: no other process would do better
        return Refused(InputError(error.strerror or str(error), str(error.filename or "")))
    except Exception:  # noqa: BLE001 - whatever it is, the scheduler raises it
        return Crashed(traceback.format_exc())


def judged(job: Job, outcome: Outcome) -> bool:
    """Say whether a job is done, or is being done by another command; raise what it raised."""
    if isinstance(outcome, Refused):
        raise outcome.error
    if not isinstance(outcome, Done):
        raise JobError(job, outcome.traceback)
    return outcome.done


@dataclass
class Losses:
    """Counts the processes that die over each job."""

    on_event: OnEvent
    _deaths: Counter[Job] = field(default_factory=Counter)

    def note(self, job: Job, ending: str) -> None:
        """Note that a process died over a job, and how; InputError if that happens again and again."""
        self._deaths[job] += 1
        if self._deaths[job] == MOST_DEATHS:
            what = f"{MOST_DEATHS} processes died over one job, the last by {ending}"
            raise InputError(what, str(job), "with less memory per run, or --jobs 1?")
        self.on_event(JobLost(str(job), ending))


class LogToScheduler(logging.Handler):
    """Sends log lines to the process that shows the study: written elsewhere they would garble its table.

    Args:
        send: passes an event on.
        unheard: what it raises where nobody listens any more.
    """

    def __init__(self, send: OnEvent, unheard: tuple[type[Exception], ...]) -> None:
        super().__init__(logging.WARNING)
        self._send, self._unheard = send, unheard

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as one line."""
        with suppress(*self._unheard):
            text = " ".join(self.format(record).splitlines())
            self._send(Message(text, once=getattr(record, ONCE, False)))
