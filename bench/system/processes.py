"""Processes by a name that no other has, on any host, before or after."""

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


def this_process() -> str:
    """Return what identifies this process among all hosts: host, number, and boot and ticks of its start.

    Ticks and no date: a clock that is set back must not make a process that runs seem another one.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_state_and_start(os.getpid())[1]}"


def has_ended(process: str) -> bool:
    """Say whether a process (see `this_process`) is of this host and has ended.

    Its start tells it from a later process with the same number.
    """
    host, number, start = process.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        state, started = _state_and_start(int(number))
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z" or started != start


def _state_and_start(number: int) -> tuple[str, str]:
    """Return a process's state (`Z`: it has ended and is not buried) and start, as proc(5) has them."""
    fields = (
        Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    return fields[0], f"{_boot()}+{fields[19]}"


@cache
def _boot() -> str:
    """Return what tells one boot of the system from another, where it says so: ticks begin anew with each."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""
