"""A long TMPDIR does not keep processes from talking to each other."""

import os
import subprocess
import sys

import pytest

from bench.core.errors import InputError
from bench.system import sockets

CODE = """
import multiprocessing
from bench.system import sockets
if __name__ == "__main__":
    sockets.make_room()
    child = multiprocessing.get_context("forkserver").Process(target=print, args=("here",))
    child.start()
    child.join()
"""


def test_processes_start_where_the_path_of_tmpdir_is_long(tmp_path):
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(CODE)
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "here\n", done.stderr


def test_where_no_folder_is_short_enough_tmpdir_is_named(monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "tempdir", "/" + "x" * 110)
    monkeypatch.setattr(sockets, "FOLDERS", ("/nowhere",))
    with pytest.raises(
        InputError, match="TMPDIR: its path of 111 bytes is too long for sockets; name a shorter one"
    ):
        sockets.make_room()
