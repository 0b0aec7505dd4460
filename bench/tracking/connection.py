"""One experiment of a run store: found or made, asked page by page, and where a person sees it."""

import logging
import os
import re
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, NotStoredError, RefusedError, RunGoneError, StoreAwayError
from bench.tracking import read_only, relocation, store_uri
from bench.tracking.client import SETTINGS, ExplainedClient, make_database

PAGE = 1000  # runs fetched at a time
log = logging.getLogger(__name__)

OURS = "bench/"  # how the names of our experiments begin
LOCAL_UI = "http://127.0.0.1:5000"  # where `bench ui` is, if no other port is asked for


RUNS = "#/experiments/{id}/runs?workflowType=machine_learning"  # else: pages for language models


def experiments(uri: str | None) -> list[str]:
    """Return the names of a store's experiments, the newest first.

    Raises:
        NotStoredError: if there is no store.
        InputError: if it can't be reached or used.
    """
    return [experiment.name for experiment in _experiments(uri)]


def newest_runs(uri: str | None) -> str:
    """Return what follows a UI's address on the page of the newest runs; empty: there are none.

    Raises what `experiments` does.
    """
    ours = [found for found in _experiments(uri) if found.name.startswith(OURS)]
    newest = max(ours, key=lambda found: found.last_update_time or 0, default=None)
    return RUNS.format(id=newest.experiment_id) if newest else ""


def _experiments(uri: str | None) -> list[Any]:
    client = _open_client(store_uri.resolve_uri(uri), create=False)
    found: list[Any] = []
    token: str | None = None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        found += page
        if not (token := page.token):
            return found


def experiment_of(uri: str | None, run_id: str) -> str:
    """Return the name of the experiment that a run is in.

    Raises:
        NotStoredError: if there is no store.
        InputError: if there is no such run, or the store can't be reached or used.
    """
    client = open_client(uri)
    try:
        run = client.get_run(run_id)
    except RefusedError as error:
        raise InputError(f"there is no run {run_id}", error.where, "see `bench ui`") from error
    return str(client.get_experiment(run.info.experiment_id).name)


def open_client(uri: str | None) -> Any:
    """Return MLflow's client for a store that is there, each of whose failures is one line.

    Raises:
        NotStoredError: if there is no store.
    """
    return _open_client(store_uri.resolve_uri(uri), create=False)


def _open_client(uri: str, *, create: bool) -> Any:
    """Return a client for a store; NotStoredError if that is a file that is missing and not to be created."""
    for name, value in SETTINGS.items():  # before mlflow is imported anywhere
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what fails is said once
    file = store_uri.sqlite_file(uri)
    if not create and file and not file.exists():
        raise NotStoredError("there is no run store", store_uri.shown(uri), "run `bench run` first")
    return ExplainedClient(uri)


class Connection:
    """MLflow's client for one experiment.

    Args:
        uri: see `store_uri.resolve_uri`.
        experiment: its name. Several processes may create it at once.
        create: whether to create it if it is missing.
        to_read: whether it is only read; then a SQLite store that can only be read is enough.
        experiment_id: if another process has found it; then nothing is asked of the store, which may be away.

    Attributes:
        client: MLflow's, each of whose failures is one line that names the store.

    Raises:
        NotStoredError: if the store or the experiment is missing and is not to be created.
        InputError: if the store can't be reached or used.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        *,
        create: bool = True,
        to_read: bool = False,
        experiment_id: str = "",
    ) -> None:
        self.uri, self.experiment = store_uri.resolve_uri(uri), experiment
        self.client = _open_client(self.uri, create=create or bool(experiment_id))
        self.experiment_id = experiment_id or self._open(create=create, to_read=to_read)

    def _open(self, *, create: bool, to_read: bool) -> str:
        file = store_uri.sqlite_file(self.uri)
        if to_read and file and not read_only.can_be_written(file):
            self._open_copy()
            return self._find_experiment(create=False)
        with store_uri.one_at_a_time(self.uri):
            make_database(file)
            with self.client.explained():
                relocation.heal(self.uri)
            return self._find_experiment(create=create)

    def _open_copy(self) -> None:
        """Let a copy of the store be asked, which lasts as long as this connection."""
        folder = tempfile.mkdtemp(prefix="bench-store-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copied = Path(folder) / "mlflow.db"
        read_only.copy(self.uri, copied)
        relocation.heal(self.uri, copied)
        self.client = ExplainedClient(f"sqlite:///{copied}")
        shown = store_uri.shown(self.uri)
        log.warning("bench: %s can only be read; the report is of a copy of what it holds now", shown)

    def _find_experiment(self, *, create: bool) -> str:
        name, where = self.experiment, store_uri.shown(self.uri)
        found = self.client.get_experiment_by_name(name)
        if found is None and not create:
            raise NotStoredError(f"there is no experiment '{name}'", where, "run `bench run` first")
        if found is None:
            root = store_uri.artifact_folder(self.uri)
            location = (root / re.sub(r"[^\w.\-]", "_", name)).as_uri() if root else None
            try:
                return str(self.client.create_experiment(name, location))
            except InputError:
                found = self.client.get_experiment_by_name(name)  # another process may have been faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise InputError(f"the experiment '{name}' was deleted", where, _restoring(found.experiment_id))
        return str(found.experiment_id)

    def answers(self) -> bool:
        """Say whether the store answers; one that does refused what it failed at."""
        try:
            self.client.get_experiment(self.experiment_id)
        except StoreAwayError:
            return False
        return True

    def require_experiment(self) -> None:
        """Raise StoreAwayError if the experiment was deleted: until it is restored, all writes wait."""
        if self.client.get_experiment(self.experiment_id).lifecycle_stage != "active":
            what = f"the experiment '{self.experiment}' was deleted"
            raise StoreAwayError(what, store_uri.shown(self.uri), _restoring(self.experiment_id))

    def restore_run(self, run_id: str) -> bool:
        """Bring a run back that was deleted while it was needed; say whether it had been.

        Raises:
            RunGoneError: if it was removed for good.
            StoreAwayError: if the whole experiment was deleted.
        """
        self.require_experiment()
        try:
            run = self.client.get_run(run_id)
        except RefusedError as error:
            raise RunGoneError(error.what, error.where) from error
        if run.info.lifecycle_stage == "active":
            return False
        self.client.restore_run(run_id)
        log.warning(
            "bench: the run '%s' (%s) was deleted while it was going on; it is restored",
            run.info.run_name,
            run_id,
        )
        return True

    @cached_property
    def _local_artifacts(self) -> Path | None:
        """The folder of the experiment's artifacts, if it is one of this machine."""
        return store_uri.local_path(self.client.get_experiment(self.experiment_id).artifact_location)

    def artifact_file(self, run_id: str, name: str) -> Path | None:
        """Return the file that an artifact is, if it is one of this machine."""
        folder = self._local_artifacts
        return folder / run_id / "artifacts" / name if folder else None

    def search(self, condition: str, *, deleted: bool = False) -> list[Any]:
        """Return all of the experiment's runs that meet a condition, newest first; `deleted`: those, too."""
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        runs: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, view, PAGE, page_token=token)
            runs += page
            if not (token := page.token):
                return runs

    @property
    def place(self) -> str:
        """Where the runs can be seen: the experiment's page, or for a store without pages its address."""
        shown = store_uri.shown(self.uri)
        if not store_uri.is_server(self.uri):
            return f"{shown} (browse: bench ui)"
        return f"{shown}/{RUNS.format(id=self.experiment_id)}"

    @property
    def run_pages(self) -> str:
        """What stands before a run's id in the address of its page; of a local store, where `bench ui` is."""
        server = store_uri.shown(self.uri) if store_uri.is_server(self.uri) else LOCAL_UI
        return f"{server}/#/experiments/{self.experiment_id}/runs/"


def _restoring(experiment_id: str) -> str:
    return f"bring it back: mlflow experiments restore -x {experiment_id}"
