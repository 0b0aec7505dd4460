"""What happens while a study runs: plain values, which travel between processes and hosts."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RunStarted:
    """A run begins: `run` is "seed 2, trial 3/8" or "seed 2/5"."""

    strategy: str
    run: str


@dataclass(frozen=True)
class Evaluated:
    """A run was evaluated: `value` is the study's metric on val."""

    strategy: str
    run: str
    value: float


@dataclass(frozen=True)
class RunEnded:
    """A run is over: `outcome` says in words how it ended."""

    strategy: str
    run: str
    outcome: str


@dataclass(frozen=True)
class RunsSkipped:
    """Runs need not be done again: `reason` says why."""

    strategy: str
    count: int
    reason: str


@dataclass(frozen=True)
class JobLost:
    """The process that did a job died, `ending` says how; the job is taken up again."""

    job: str
    ending: str


@dataclass(frozen=True)
class Message:
    """A line for the person who watches; `once`: however many processes give it."""

    text: str
    once: bool = False


Event = RunStarted | Evaluated | RunEnded | RunsSkipped | JobLost | Message
OnEvent = Callable[[Event], None]
