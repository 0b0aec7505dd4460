"""Where the run store is: its address is checked, shown without a password, and made ready for use."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.core.errors import InputError, nearest
from bench.system import locations

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
CONNECT_SECONDS = 5  # to a database server; MLflow itself would try for two minutes
DRIVERS = {  # what `postgresql://` means without more changed with SQLAlchemy 2.1
    "psycopg": "pip install psycopg2-binary and write postgresql+psycopg2://",
    "psycopg2": "pip install psycopg2-binary",
    "MySQLdb": "pip install mysqlclient",
}
# How a session takes the one lock of this project; 1650553704 is "bnch" in ASCII.
LOCKING = {
    "postgresql": "select pg_advisory_lock(1650553704)",
    "mysql": "select get_lock('transfer-bench', 600)",
}
EXAMPLES = "for example sqlite:///mlflow.db or http://127.0.0.1:5000"


def resolve_uri(uri: str | None = None) -> str:
    """Return the store's address: the one given, `MLFLOW_TRACKING_URI`, or a SQLite file in `BENCH_HOME`.

    Raises:
        InputError: if it is no address of an MLflow store.
    """
    where = "--tracking-uri" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{locations.home() / 'mlflow.db'}"
    scheme, colon, rest = uri.partition("://")
    kind = scheme.split("+")[0]
    if not colon or kind not in SCHEMES:
        guess = nearest(scheme, SCHEMES) if colon else "folders are not accepted;"
        raise InputError(f"'{shown(uri)}' is not the address of a run store", where, f"{guess} {EXAMPLES}")
    if rest.strip("/") in {"", ":memory:"}:
        raise InputError(
            f"'{shown(uri)}' names no {'file' if kind == 'sqlite' else 'server'}", where, EXAMPLES
        )
    if kind == "sqlite":
        return f"{scheme}:///{locations.expanded(rest.removeprefix('/')).resolve()}"
    return uri.rstrip("/")


def shown(uri: str) -> str:
    """Return an address, or a text that holds some, without passwords: before the last @, or in a query."""
    return re.sub(r"\S*:/\S+", lambda found: _without_passwords(found[0]), uri)


def _without_passwords(uri: str) -> str:
    uri = re.sub(r"(:/*[^:/@?]*):.*@", r"\1:***@", uri)
    return re.sub(r"([?&][^=&]+=)[^&'\"]*", r"\1***", uri)


def is_server(uri: str) -> bool:
    """Say whether the store is an MLflow server rather than a database."""
    return uri.startswith(("http://", "https://"))


def artifact_folder(uri: str) -> Path | None:
    """Return the artifacts' folder: beside a SQLite file, else in `BENCH_HOME`; None: a server decides."""
    if is_server(uri):
        return None
    file = sqlite_file(uri)
    return (file.parent if file else locations.home()) / "artifacts"


def local_path(artifacts: str) -> Path | None:
    """Return the folder of an address of artifacts, if it is one of this machine."""
    return Path(unquote(urlsplit(artifacts).path)) if artifacts.startswith("file:") else None


@contextmanager
def one_at_a_time(uri: str) -> Iterator[None]:
    """Hold a lock that other processes of this host wait for.

    Several processes that open a fresh database at once break it (`duplicate column name`). A database that
    processes of other hosts may open keeps the lock itself. A server is alone with its database and needs
    none.
    """
    if is_server(uri):
        yield
        return
    file = sqlite_file(uri) or locations.home() / "tracking"
    with explained(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.with_name(f"{file.name}.lock").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with _locked_in_database(uri):
            yield


@contextmanager
def _locked_in_database(uri: str) -> Iterator[None]:
    """Hold a lock that a database server keeps, and gives free if this process dies; others wait for it."""
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in LOCKING:
        yield
        return
    import sqlalchemy

    with explained(uri):
        engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": CONNECT_SECONDS})
        connection = engine.connect()
        connection.execute(sqlalchemy.text(LOCKING[kind]))
    try:
        yield
    finally:
        connection.close()
        engine.dispose()  # which ends the session, and the lock with it


def require_database(uri: str) -> None:
    """Fail at once if a database can't be used; give SQLite a write-ahead log: it halves MLflow's times."""
    if is_server(uri):
        return
    with explained(uri):
        if file := sqlite_file(uri):
            with closing(sqlite3.connect(file, timeout=20)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        else:
            _connect_once(uri)


def _connect_once(uri: str) -> None:
    import sqlalchemy

    name = sqlalchemy.make_url(uri).get_backend_name()
    limit = {"connect_timeout": CONNECT_SECONDS} if name in {"postgresql", "mysql"} else {}
    engine = sqlalchemy.create_engine(uri, connect_args=limit)
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for any other."""
    return Path(unquote(uri.partition(":///")[2]).partition("?")[0]) if uri.startswith("sqlite") else None


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what the database or its driver raises into one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        remedy = DRIVERS.get(error.name or "", "install it")
        raise InputError(f"the database driver {error.name} is not installed", shown(uri), remedy) from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise InputError(f"the run store can't be opened: {first_line(error)}", shown(uri)) from error


def why_away(error: BaseException) -> str:
    """Return why a server gave no answer: what the network says, without the layers that pass it on."""
    text = str(error)
    found = re.search(r"\[Errno -?\d+\] ([\w ]+)|(Read timed out|too many \d+ error responses)", text)
    return next(filter(None, found.groups())) if found else first_line(error)


def first_line(error: BaseException) -> str:
    """Return the first line of an error, without passwords, at most 200 characters."""
    return shown(str(error).strip().split("\n")[0] or type(error).__name__)[:200]
