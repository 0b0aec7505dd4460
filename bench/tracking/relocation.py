"""Put right the absolute addresses that MLflow keeps, in a store that was moved or copied."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from bench.tracking import store_uri

log = logging.getLogger(__name__)

# Where MLflow keeps addresses: table and column.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def heal(uri: str, copied: Path | None = None) -> None:
    """Let a SQLite store point at the artifacts beside it, where it points at those of where it came from.

    A store is made with its artifacts beside it. If it is somewhere else now, and has artifacts beside it
    again (or those of before are gone), it was moved or copied as a whole. Others are left as they are.

    Args:
        uri: of the store.
        copied: what is put right instead, if the store can only be read.
    """
    file = store_uri.sqlite_file(uri)
    if file is None or not file.exists():
        return
    here = file.parent / "artifacts"
    with closing(sqlite3.connect(copied or file, timeout=20)) as database, database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        if "experiments" not in tables:
            return
        rows = database.execute("select artifact_location from experiments").fetchall()
        for old in {place.parent for (address,) in rows if (place := _moved(address, here))}:
            _readdress(database, tables, old.as_uri() + "/", here.as_uri() + "/")
            log.warning("bench: the run store was in %s; its artifacts are in %s now", old.parent, here)


def _moved(address: str | None, here: Path) -> Path | None:
    """Return where an experiment's artifacts were, if they are here now."""
    place = store_uri.local_path(address or "")
    if place is None or place.parent == here or place.parent.name != here.name:
        return None
    return place if (here / place.name).is_dir() or not place.exists() else None


def _readdress(database: sqlite3.Connection, tables: set[str], old: str, new: str) -> None:
    for table, column in ADDRESSES:
        if table in tables:
            columns = {row[1] for row in database.execute(f"pragma table_info({table})")}
            if column in columns:
                database.execute(
                    f"update {table} set {column} = ? || substr({column}, ?)"  # noqa: S608 - names from above
                    f" where substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old), old),
                )
