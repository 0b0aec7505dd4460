"""Nothing of the current folder is ever imported: it may be a stranger's, with a `signal.py` in it.

Imports nothing that Python has not loaded by itself before the current folder is on the path.
"""

import os
import sys

_ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))  # noqa: PTH118, PTH120


def leave_out_current_folder() -> None:
    """Take the current folder off the import path, here and in every Python that is started from now on.

    `python -m` and `python -c` put it there, and so do the children of multiprocessing, which are started
    with `-c`. In a clone of this project it is where `bench` itself is: then it goes behind all others.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    here = _current_folder()
    kept = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    own = [_ROOT] if here == _ROOT else []
    sys.path[:] = kept + own


def _current_folder() -> str:
    try:
        return os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # it was removed
        return ""
