"""What is printed: every line fit for a terminal, on streams that may be closed, full or of few letters."""

import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bench.core.errors import InputError
from bench.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.experiment.plan import Plan
    from bench.study.schema import Study

PLAIN_WIDTH = 80  # of a table that no terminal shows
GAP, LEAST_CELL = 2, 16  # columns between those of a table, and that its first one has at least
MOST_OF_VERDICT = 24  # columns of the last one of a report's table, which is wrapped
# Columns of that table that are left out where a terminal is too narrow, in this order.
SPARED = ("Trials", "Tuning (s)", "Run (s)", "Trainable")


def open_streams() -> None:
    """Make the three standard streams usable, whatever this process was started with.

    One that was closed discards what it is given: else the next file that is opened would take its number
    and get what is meant for it. A letter that the terminal's encoding lacks is written as its escape.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(handle := os.open(os.devnull, os.O_RDWR), number)
            if handle != number:
                os.close(handle)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def log_to_stderr() -> None:
    """Let warnings of all parts be lines on standard error, whatever that is when they are given."""
    handler = _StderrHandler()
    handler.setFormatter(_LineFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.raiseExceptions = False  # what can't be written is no reason for a traceback


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the `sys.stderr` of the moment: while a live table is shown that is the table's."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        """Keep none."""


class _LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        return printable(" ".join(super().formatMessage(record).splitlines()))


class Voice(Enum):
    """How much is printed: all; the answer and nothing else; or that as JSON."""

    full = "full"
    quiet = "quiet"
    json = "json"


_voice = Voice.full


def speak(voice: Voice) -> None:
    """Choose how much this process prints from now on; one choice only.

    Raises:
        InputError: if another one was made before.
    """
    global _voice  # noqa: PLW0603 - there is one standard output
    if Voice.full not in {_voice, voice} and _voice is not voice:
        raise InputError("--quiet and --json both say what is printed", "", "give one of them")
    _voice = voice


def is_full() -> bool:
    """Say whether everything is printed, progress included."""
    return _voice is Voice.full


def say(text: str = "", end: str = "\n") -> None:
    """Print a line of what is told beside the answer, unless only that is wanted.

    Raises:
        OSError: if standard output can't be written; it names it.
    """
    if is_full():
        answer(text, end)


def answer(text: str, end: str = "\n") -> None:
    """Print a line of the answer; raises what `say` does."""
    try:
        print(printable(text), end=end, flush=True)
    except OSError as error:
        raise _stdout_failed(error) from error


def say_lines(text: str) -> None:
    """Print a text of our own of several lines; what steers a terminal is escaped in each."""
    for line in text.removesuffix("\n").split("\n"):
        say(line)


def complain(text: str, error: BaseException | None = None) -> None:
    """Print a line on standard error; with `error` also where that comes from. Nobody may listen."""
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)
        if error is not None:
            traceback.print_exception(error)


def flush() -> None:
    """Write what standard output holds back.

    Raises:
        OSError: if that can't be done; it names standard output.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _stdout_failed(error) from error


def _stdout_failed(error: OSError) -> OSError:
    """Discard what standard output holds back, or Python complains of it when it ends; name the stream."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OSError(error.errno, error.strerror, "standard output")


def announce(plan: "Plan", chosen: Sequence[tuple[str, str]] = ()) -> None:
    """Say what is about to be run, and on what; `chosen`: what nobody asked for, and why it is so."""
    from bench.data import balance, groups, left_out
    from bench.study_record import facts

    study, first, dataset = plan.study, plan.splits[1], plan.dataset
    parts = f"train {len(first.train)}, val {len(first.val)}, test {len(first.test)} images"
    say(f"{study.name}: {study.question}")
    for what, why in chosen:
        say(f"  {what:<8} {why}")
    origin = f" ({dataset.origin})" if dataset.origin != dataset.name else ""
    say(f"  data     {dataset.name}: {len(dataset.classes)} classes; {parts}{origin}")
    for line in plan.shortfalls:
        say(f"           {line}")
    if words := dataset.framing.in_words:
        say(f"  images   {words} (target.fit: {dataset.framing.fit})")
    for name, test in plan.also_test.items():
        known = f", {test.known:,} of them also in the study's own data" if test.known else ""
        say(f"  also on  {name}: {test.dataset.name}, {len(test.indices):,} images{known}")
    if counts := facts.groups(dataset, first):
        kind = counts.pop("kind")
        say(f"  groups   by {kind}: {', '.join(f'{count:,} {where}' for where, count in counts.items())}")
    elif found := groups.signs(dataset, study.target):
        say(f"  groups   none are given, but {found}")
    if found := balance.signs_of_imbalance(dataset, study, first.train):
        say(f"  metric   {study.metric}, but {found}")
    say(f"  weights  {study.source.model}: {plan.origin.text}")
    trials = f"{study.tuning.trials} trial{'s' if study.tuning.trials > 1 else ''}"
    ends = " to ".join(map(str, dict.fromkeys((study.looks[0], study.most_seeds))))
    seeds = f"{ends} seed{'s' if study.most_seeds > 1 else ''}"
    of = f"{len(study.strategies)} strategies" if len(study.strategies) > 1 else study.strategies[0]
    say(f"  budget   {trials} of at most {plan.evaluations[-1]} steps for each of {seeds} of {of}")
    for line in left_out.summarise(dataset.rejected):
        say(f"  left out {line}")


def conclude(summary: Mapping[str, Any], folder: Path, runs: str) -> None:
    """Print what to use, a report's table, the verdict and what limits it, and say where everything is.

    Args:
        summary: the report's `summary.json`.
        folder: of the report.
        runs: where the runs can be seen.
    """
    if not is_full():
        recommendation = summary.get("recommendation")
        answer_alone(summary, [recommendation["sentence"] if recommendation else summary["verdict"]], folder)
        return
    from rich.console import Console

    if recommendation := summary.get("recommendation"):
        say(recommendation["sentence"])
        say()
    console = Console(highlight=False, markup=False, width=terminal_width() or PLAIN_WIDTH)
    console.print(_fitting_table(summary, console))
    say(summary["verdict"])
    if ruling := summary.get("ruling"):
        say(f"Rule of thumb: {ruling['outcome']}. {ruling['sentence']}")
    if settling := summary.get("settling"):
        say(settling["sentence"])
        if settling["command"]:
            say(f"  {settling['command']}")
    for note in summary["notes"]:
        say(f"  - {note}")
    say(f"report  {folder / 'index.html'}")
    say(f"runs    {runs}")


def answer_alone(summary: Mapping[str, Any], lines: Sequence[str], folder: Path) -> None:
    """Print what a report says as JSON; or what matters of it, and where it is; neither if all is printed."""
    if _voice is Voice.json:
        answer(json.dumps({**summary, "report": str(folder)}))
    elif _voice is Voice.quiet:
        for line in [*lines, str(folder / "index.html")]:
            answer(line)


def _fitting_table(summary: Mapping[str, Any], console: "Console") -> "Table":
    """Return a report's table with as many columns as a terminal has room for."""
    from rich.measure import Measurement

    unbounded = console.options.update_width(1000)
    for spared in range(len(SPARED) + 1):
        table = _table(summary, SPARED[:spared])
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    return table


def _table(summary: Mapping[str, Any], left_out: Collection[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headers, rows = summary["table"]["headers"], summary["table"]["rows"]
    shown = [place for place, header in enumerate(headers) if header not in left_out]
    table = Table(
        title=Text(printable(summary["study"])),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for place in shown:
        is_last = place == len(headers) - 1
        table.add_column(Text(printable(headers[place])), max_width=MOST_OF_VERDICT if is_last else None)
    for row in rows:
        table.add_row(*(Text(printable(str(row[place]))) for place in shown))
    return table


def terminal_width() -> int | None:
    """Return the columns of the terminal that shows the answer; None: it goes to a file or a program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def show(studies: "list[Study]", chosen: Sequence[tuple[str, str]] = ()) -> None:
    """Print resolved studies as YAML; what was chosen for them, and why, are comments."""
    from bench.study.loading import as_yaml

    for what, why in chosen:
        say(f"# {what}: {why}")
    say_lines("---\n".join(as_yaml(study) for study in studies))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal: what is too long is cut, of the first column the beginning."""
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    longest, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    room = (terminal_width() or PLAIN_WIDTH) - GAP * len(others)
    if longest + sum(others) > room:
        others = [min(width, (room - LEAST_CELL) // len(others)) for width in others]
        longest = min(longest, room - sum(others))
    for first, *more in cells:
        shown = [_cut(first[::-1], longest)[::-1], *map(_cut, more, others)]
        line = (f"{cell:<{width}}" for cell, width in zip(shown, [longest, *others], strict=True))
        say((" " * GAP).join(line).rstrip())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
