"""A SQLite store that can only be read, as in another user's home: MLflow, which writes, is given a copy."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from bench.tracking import store_uri


def can_be_written(file: Path) -> bool:
    """Say whether a store can be opened where it is: SQLite keeps files beside it, and so does its lock."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def copy(uri: str, to: Path) -> None:
    """Copy a store as it is at one moment, though others may be writing to it.

    Raises:
        InputError: if it can't be read, or a process that was killed left it half written.
    """
    file = store_uri.sqlite_file(uri)
    assert file, "only a store in a file is copied"
    with store_uri.explained(uri):
        try:
            _copy(f"{file.as_uri()}?mode=ro", to)
        except sqlite3.OperationalError:
            if file.with_name(f"{file.name}-wal").exists():
                raise
            _copy(f"{file.as_uri()}?immutable=1", to)  # nobody has it open: SQLite need not watch for others


def _copy(source: str, to: Path) -> None:
    with closing(sqlite3.connect(source, uri=True)) as stored, closing(sqlite3.connect(to)) as copied:
        stored.backup(copied)
