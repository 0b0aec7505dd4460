"""MLflow's client, each of whose failures is one line that names the store."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, RefusedError, StoreAwayError
from bench.system import files
from bench.tracking import store_uri

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is raised too, and said in one line
    # With MLflow's own settings each call to a server that is gone blocks for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
# What MLflow calls a connection that fails, a server's fault and a database that is locked or gone; None: the
# network's or the disk's own errors. A password that has expired loses nothing either: what is written waits.
AWAY = {
    None,
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "UNAUTHENTICATED",
    "CUSTOMER_UNAUTHORIZED",
    "PERMISSION_DENIED",
}


def make_database(file: Path | None) -> None:
    """Make a new SQLite store whole or not at all: MLflow refuses one whose tables are half made.

    The lock of `store_uri.one_at_a_time` must be held: what a killed process left half made is removed.

    Raises:
        InputError: if it can't be written: a disk that is full, a path that is too long.
    """
    if file is None or (file.exists() and file.stat().st_size):
        return
    for half_made in file.parent.glob(f".{file.name}.*.tmp*"):
        half_made.unlink(missing_ok=True)
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables

    with store_uri.explained(f"sqlite:///{file}"), files.replacing(file) as temporary:
        engine = sqlalchemy.create_engine(f"sqlite:///{temporary}")
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()


class ExplainedClient:
    """An MLflow client each of whose failures is one line that names the store."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _client(self) -> Any:
        """MLflow's client, made when it is first used: making one for a database asks the database.

        MLflow would ask for minutes.
        """
        from mlflow import MlflowClient

        try:
            store_uri.require_database(self._uri)
        except InputError as error:
            raise StoreAwayError(error.what, error.where, error.remedy) from error
        with explained_failures(self._uri):
            return MlflowClient(self._uri, self._uri)

    @property
    def database(self) -> Any:
        """MLflow's own access to the store, which can do more where it is a database."""
        return getattr(getattr(self._client, "_tracking_client", None), "store", None)

    def explained(self) -> AbstractContextManager[None]:
        """Return the context in which whatever MLflow or the network raise is one line."""
        return explained_failures(self._uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def explained(*args: Any, **options: Any) -> Any:
            with explained_failures(self._uri):
                return call(*args, **options)

        return explained


@contextmanager
def explained_failures(uri: str) -> Iterator[None]:
    """Turn what MLflow or the network raise into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, sqlite3.Error) as error:
        remedy = "is the server running?" if store_uri.is_server(uri) else ""
        kind = StoreAwayError if getattr(error, "error_code", None) in AWAY else RefusedError
        why = store_uri.why_away(error) if store_uri.is_server(uri) else store_uri.first_line(error)
        raise kind(f"the run store failed: {why}", store_uri.shown(uri), remedy) from error


def may_be_refusal(error: BaseException) -> bool:
    """Say whether a store that failed may have failed at what it was given: both are an internal error."""
    return getattr(error.__cause__, "error_code", None) == "INTERNAL_ERROR"
