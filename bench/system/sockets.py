"""Sockets of this machine's processes: their paths are short by the system's rules, whatever TMPDIR is."""

import os
import tempfile
from multiprocessing import util

from bench.core.errors import InputError

LONGEST_PATH = 107  # bytes of a socket's path, unix(7)
NAMES_IN_IT = len("/pymp-12345678/listener-12345678")  # what multiprocessing adds to a folder
FOLDERS = ("XDG_RUNTIME_DIR", "/tmp", "/var/tmp")  # noqa: S108 - it makes a folder of its own in one of them


def make_room() -> None:
    """Let multiprocessing put its sockets into a folder whose path is short enough.

    Raises:
        InputError: if there is none that can be written to.
    """
    before = tempfile.gettempdir()
    if fits(before):
        return
    for name in FOLDERS:
        folder = os.environ.get(name, "") if name.isupper() else name
        if folder and fits(folder) and os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                util.get_temp_dir()  # made once, and used from then on
            finally:
                tempfile.tempdir = before
            return
    raise InputError(
        f"its path of {len(os.fsencode(before))} bytes is too long for sockets",
        "TMPDIR",
        "name a shorter one",
    )


def fits(folder: str) -> bool:
    """Say whether a socket of multiprocessing in a folder would have a path that is short enough."""
    return len(os.fsencode(folder)) + NAMES_IN_IT <= LONGEST_PATH
