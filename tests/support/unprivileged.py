"""Commands for which what can only be read can only be read, whoever runs the tests."""

import os
import shutil
from contextlib import contextmanager

import pytest


def unprivileged():
    """Return what stands before a command so that root, too, is held to the rights of files; or skip."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@contextmanager
def only_to_read(folder):
    """Take the right to write to a folder, and to all in it, from everybody for a while."""
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
