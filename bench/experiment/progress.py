"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from bench.core.text import printable
from bench.experiment.events import (
    Evaluated,
    Event,
    JobLost,
    Message,
    RunEnded,
    RunsSkipped,
    RunStarted,
)
from bench.study.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FAILED = "failed"  # how the outcome of a run begins that failed


@dataclass
class ArmState:
    """How far an arm is."""

    strategy: str
    runs: int  # trials and seeds
    evaluations: int  # of a run that takes all its steps
    doing: str = "waiting"
    runs_done: int = 0
    running: dict[str, int] = field(default_factory=dict)  # what is under way, and how often it was evaluated
    best: float | None = None
    seconds: float = 0.0
    since: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds spent on the arm so far."""
        return self.seconds + (time.monotonic() - self.since if self.since is not None else 0.0)

    @property
    def share(self) -> float:
        """Share of the arm's work that is done, counting every run as if it took all its steps."""
        return min(1.0, (self.runs_done + sum(self.running.values()) / self.evaluations) / self.runs)


@dataclass
class Progress:
    """Keeps count of arms, runs and evaluations; on its own it prints plain lines, a line a run.

    Args:
        metric: the name of the val metric shown.
        stream: where lines go.
    """

    metric: str
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    arms: dict[str, ArmState] = field(default_factory=dict)
    side_by_side: int = 1  # how many runs are under way at a time
    shown: set[str] = field(default_factory=set)  # messages that are worth a line once

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def plan(self, strategy: str, runs: int, evaluations: int) -> None:
        """Announce an arm."""
        self.arms[strategy] = ArmState(strategy, runs, evaluations)

    def extend(self, strategy: str, runs: int) -> None:
        """Announce how many runs an arm has, as far as that is known; one that has them all is done."""
        arm = self.arms[strategy]
        arm.runs = runs
        if arm.runs_done >= runs:
            self.end_arm(strategy)

    def start_run(self, strategy: str, doing: str) -> None:
        """Note that a run begins: `doing` is "seed 2, trial 3/8" or "seed 2/5"."""
        arm = self.arms[strategy]
        arm.doing, arm.running[doing] = doing, 0
        arm.since = arm.since if arm.since is not None else time.monotonic()

    def note_evaluation(self, strategy: str, doing: str, value: float) -> None:
        """Note the val metric of an evaluation."""
        arm = self.arms[strategy]
        arm.running[doing] = arm.running.get(doing, 0) + 1  # that it began may have been lost with a machine
        arm.best = value if arm.best is None else METRICS[self.metric].best([arm.best, value])

    def end_run(self, strategy: str, doing: str, outcome: str) -> None:
        """Note how a run ended, in words."""
        self._count(strategy, doing)
        self.say(f"{strategy}: {doing}: {outcome}{self._left()}")

    def _count(self, strategy: str, doing: str) -> None:
        arm = self.arms[strategy]
        arm.runs_done += 1
        arm.running.pop(doing, None)

    def on_event(self, event: Event) -> None:
        """Note what happens, here or in another process."""
        match event:
            case RunStarted(strategy, run):
                self.start_run(strategy, run)
            case Evaluated(strategy, run, value):
                self.note_evaluation(strategy, run, value)
            case RunEnded(strategy, run, outcome):
                self.end_run(strategy, run, outcome)
            case RunsSkipped(strategy, count, reason):
                self.skip_runs(strategy, count, reason)
            case JobLost(job, ending):
                self.say(f"bench: a process died ({ending}); its job is taken up again: {job}")
            case Message(text, once):
                if not (once and text in self.shown):
                    self.say(text)
                self.shown |= {text} if once else set()

    def skip_runs(self, strategy: str, count: int, doing: str) -> None:
        """Note runs that were found done."""
        if count:
            arm = self.arms[strategy]
            arm.runs_done, arm.doing = arm.runs_done + count, doing
            self.say(f"{strategy}: {doing}")

    def end_arm(self, strategy: str) -> None:
        """Note that an arm is complete."""
        arm = self.arms[strategy]
        arm.seconds, arm.since = arm.elapsed, None
        arm.doing, arm.runs_done, arm.running = "done", arm.runs, {}

    def say(self, line: str) -> None:
        """Show a line that stays; that nobody can read it is no reason to end a study."""
        with suppress(OSError):
            print(printable(line), file=self.stream, flush=True)

    def seconds_left(self) -> float | None:
        """Estimate the time left: each arm at its own pace, those not begun at the pace of the others."""
        begun = [(arm.elapsed, arm.share) for arm in self.arms.values() if arm.elapsed and arm.share]
        if not begun:
            return None
        mean = sum(elapsed for elapsed, _ in begun) / sum(share for _, share in begun)
        left = 0.0
        for arm in self.arms.values():
            pace = arm.elapsed / arm.share if arm.elapsed and arm.share else mean
            left += pace * (1 - arm.share)
        return left / self.side_by_side

    def _left(self) -> str:
        left = self.seconds_left()
        return f" (about {duration(left)} left)" if left else ""


class _AboveTheTable(logging.Handler):
    """Shows log lines where they don't garble the table."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record as one line."""
        self._progress.say(" ".join(self.format(record).splitlines()))


@dataclass
class LiveProgress(Progress):
    """The live table. What others log or print meanwhile is shown above it.

    Args:
        console: of the terminal; None: the one of `stream`.
    """

    console: "Console | None" = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self._table,
            console=self.console or Console(file=self.stream),
            refresh_per_second=4,
            transient=True,
        )
        root = logging.getLogger()
        self._handlers, root.handlers = root.handlers, [_AboveTheTable(self)]
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().handlers = self._handlers
        with suppress(OSError):  # a terminal that was closed
            self._live.stop()

    def end_run(self, strategy: str, doing: str, outcome: str) -> None:
        """Note that a run ended; the table has no room for more than the reason why one failed."""
        self._count(strategy, doing)
        if outcome.startswith(FAILED):
            self.say(f"{strategy}: {doing}: {outcome}")

    def skip_runs(self, strategy: str, count: int, doing: str) -> None:
        """Note runs that were found done."""
        arm = self.arms[strategy]
        arm.runs_done, arm.doing = arm.runs_done + count, doing if count else arm.doing

    def say(self, line: str) -> None:
        """Show a line above the table."""
        with suppress(OSError):
            self._live.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> "Table":
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        left = self.seconds_left()
        caption = f"best on val by {self.metric}; {f'about {duration(left)} left' if left else 'starting'}"
        table = Table(box=box.SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0))  # within 80 columns
        for header in ("strategy", "doing", "evaluation", "progress", "best", "time"):
            table.add_column(header, justify="right" if header in {"evaluation", "time"} else "left")
        for arm in self.arms.values():
            done = " ".join(f"{count}/{arm.evaluations}" for count in arm.running.values())
            best = f"{arm.best:.3f}" if arm.best is not None else ""
            bar = ProgressBar(total=1, completed=arm.share, width=12)
            table.add_row(
                arm.strategy, arm.doing, done, bar, best, duration(arm.elapsed) if arm.elapsed else ""
            )
        return table


class NoProgress(Progress):
    """Keeps count and shows nothing but what was lost."""

    def say(self, line: str) -> None:
        """Print a line only if it complains."""
        if line.startswith("bench: "):
            super().say(line)


def choose(metric: str, *, shown: bool = True) -> Progress:
    """Return the live view on a terminal that can move its cursor, else plain lines; none if not shown."""
    if not shown:
        return NoProgress(metric)
    can_move = sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}
    return LiveProgress(metric) if can_move else Progress(metric)


def duration(seconds: float) -> str:
    """Return seconds in words: `8 s`, `2 min 05 s`, `1 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
