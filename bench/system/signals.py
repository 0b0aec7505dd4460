"""Ctrl-C and SIGTERM, in every process; `cli/app.py` gives the exit status.

A first one waits until what must not be cut in two is done; a second one acts at once. Whatever takes longer
than `pause_seconds` saves what it has that often: no signal comes before a power cut.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bench.core.errors import InputError

SECONDS = 30.0  # between two savings of what is under way; what is shorter is not saved
STOPS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"bench: finishing the step and saving it; press Ctrl-C again to stop at once\n"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, which a batch system sends before it kills, raise KeyboardInterrupt as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def obey_parent() -> None:
    """Be a worker: a terminal sends Ctrl-C to all processes, and the parent says by SIGTERM when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)


def pause_seconds() -> float:
    """Return the seconds between two savings: `BENCH_CHECKPOINT_SECONDS`, else 30."""
    text = os.environ.get("BENCH_CHECKPOINT_SECONDS", "")
    try:
        return float(text) if text else SECONDS
    except ValueError:
        raise InputError(f"'{text}' is not a number of seconds", "BENCH_CHECKPOINT_SECONDS") from None


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer a first signal to stop; yield what says whether there was one.

    Only where a handler of Python's is installed, in the main thread; elsewhere nothing changes.

    Raises:
        KeyboardInterrupt: at the end, if there was one.
    """
    asked = False
    before: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        _restore(before)
        if number == signal.SIGINT:
            os.write(2, NOTICE)  # print is not to be used in a handler

    if threading.current_thread() is threading.main_thread():
        before |= {s: old for s in STOPS if callable(old := signal.getsignal(s))}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        _restore(before)
    if asked:
        raise KeyboardInterrupt


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
