"""What a person sees while a study runs, on a terminal and elsewhere."""

import io
import logging
import os
import re
import sys

import pytest
from rich.console import Console

from bench.experiment.events import Evaluated, JobLost, Message, RunEnded, RunsSkipped, RunStarted
from bench.experiment.progress import LiveProgress, Progress, choose


@pytest.fixture
def screen():
    """A live view of two arms on a terminal that keeps all that is written to it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
    view = LiveProgress("accuracy", stream=console.file, console=console)
    for strategy in ("full", "scratch"):
        view.plan(strategy, runs=2, evaluations=4)
    return view


def shown(view):
    return view.console.file.getvalue()


def lines(view):
    """All lines that were ever on the screen, without what was erased at their place before."""
    written = [line.rpartition("\x1b[2K")[2] for line in shown(view).split("\n")]
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line).strip() for line in written]


def test_the_table_shows_how_far_each_arm_is(screen):
    with screen:
        screen.on_event(RunStarted("full", "trial 1/1"))
        screen.on_event(Evaluated("full", "trial 1/1", 0.25))
        screen.on_event(Evaluated("full", "trial 1/1", 0.125))
        screen._live.refresh()
        (row,) = [line for line in shown(screen).split("\n") if "trial 1/1" in line][-1:]
        assert "2/4" in row
        assert "0.250" in row, "the best epoch"
        assert screen.arms["full"].share == 0.25
        screen.on_event(RunEnded("full", "trial 1/1", "val accuracy 0.250 in 1.0 s"))
        screen.on_event(RunsSkipped("scratch", 2, "2 seeds found done"))
    assert screen.arms["full"].share == 0.5
    assert screen.arms["scratch"].share == 1
    assert "val accuracy 0.250" not in shown(screen), "the table says it"


def test_the_best_epoch_is_the_lowest_where_lower_is_better(error_rate):
    view = Progress(error_rate.name, stream=io.StringIO())
    view.plan("full", runs=1, evaluations=3)
    view.on_event(RunStarted("full", "trial 1/1"))
    for value in (0.5, 0.25, 0.375):
        view.on_event(Evaluated("full", "trial 1/1", value))
    assert view.arms["full"].best == 0.25


def test_the_reason_of_a_failed_run_stays_on_the_terminal(screen):
    with screen:
        screen.on_event(RunStarted("full", "seed 1/1"))
        screen.on_event(RunEnded("full", "seed 1/1", "failed: train/loss [/x] is not finite\x1b[2J"))
        screen.on_event(JobLost("full, seed 1", "SIGKILL"))
    text = shown(screen)
    assert r"full: seed 1/1: failed: train/loss [/x] is not finite\x1b[2J" in text
    assert "a process died (SIGKILL); its job is taken up again: full, seed 1" in text


def test_log_lines_and_what_others_print_stand_above_the_table(screen):
    handlers = logging.getLogger().handlers
    with screen:
        logging.getLogger("bench.test").warning("features are %s\nkept", "not")
        sys.stderr.write("printed by a library\n")
        screen._live.refresh()
    assert logging.getLogger().handlers is handlers
    assert {"features are not kept", "printed by a library"} <= set(lines(screen)), "each on its own line"
    assert shown(screen).index("features are not kept") < shown(screen).rindex("strategy")


def test_elsewhere_each_run_is_a_line():
    stream = io.StringIO()
    with Progress("accuracy", stream=stream) as view:
        view.plan("full", runs=2, evaluations=1)
        view.on_event(RunStarted("full", "trial 1/1"))
        view.on_event(Evaluated("full", "trial 1/1", 0.5))
        view.on_event(RunEnded("full", "trial 1/1", "val accuracy 0.500 in 1.0 s"))
        view.on_event(Message("a\nbench: forged \x1b[2J"))
        view.end_arm("full")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("full: trial 1/1: val accuracy 0.500 in 1.0 s")
    assert second == r"a\nbench: forged \x1b[2J"
    assert view.seconds_left() == 0


def test_what_two_processes_give_once_is_shown_once():
    stream = io.StringIO()
    with Progress("accuracy", stream=stream) as view:
        for text, once in (("apart", True), ("apart", True), ("again", False), ("again", False)):
            view.on_event(Message(text, once=once))
    assert stream.getvalue().split() == ["apart", "again", "again"]


def test_a_stream_that_is_full_ends_no_study():
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123
        Progress("accuracy", stream=full).say("a line")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # what is left is written when it is closed


@pytest.mark.parametrize(("term", "kind"), [("xterm", LiveProgress), ("dumb", Progress), ("", Progress)])
def test_a_terminal_that_can_not_move_its_cursor_gets_lines(monkeypatch, term, kind):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", type("Terminal", (io.StringIO,), {"isatty": lambda _self: True})())
    assert type(choose("accuracy")) is kind
