"""Write to the run store, directly; each write gives the same if it is done twice."""

import getpass
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.errors import InputError, RefusedError
from bench.core.hashing import canonical_json
from bench.system import files
from bench.system.processes import this_process
from bench.system.provenance import git_commit
from bench.tracking import store_uri
from bench.tracking.connection import Connection
from bench.tracking.live_run import End, Point

METRICS, OTHERS = 800, 100  # in a batch; MLflow takes 1,000 entries, 100 params, 100 tags
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000  # characters
SETTLE_SECONDS = 0.5  # longer than it takes until all see a run that was begun
LONGEST_DATASET, LONGEST_SOURCE = 500, 65_000  # the same: of a data set's name, and of where it is from
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description, in Markdown


class Writer:
    """Writes to one experiment; each method raises InputError if the store can't be reached or refuses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create_run(self, name: str, tags: Mapping[str, Any], milliseconds: int | None = None) -> str:
        """Begin a run and return its id; `milliseconds` since 1970, when it began: now, if None."""
        everything = _texts({**_origin(), **tags, "bench.process": this_process()}, LONGEST_TAG)
        name = _text(name, LONGEST_NAME)
        run = self._connection.client.create_run(
            self._connection.experiment_id, milliseconds, everything, name
        )
        return str(run.info.run_id)

    def open_run(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Return the id of the run of the same purpose and `bench.key`, RUNNING again, or of a new one.

        Params that it has already are left as they are: MLflow refuses to change them. Where two processes
        begin one at the same time, both take the earlier: they look again when each can see the other's.
        Those of one machine, whose store is a file, wait for each other before.
        """
        same = f"tags.\"bench.key\" = '{tags['bench.key']}' and tags.purpose = '{tags['purpose']}'"
        found = self._earliest(same)
        if not found:
            run_id = self.create_run(name, tags)
            if store_uri.sqlite_file(self._connection.uri) is None:
                time.sleep(SETTLE_SECONDS)
            found = self._earliest(same)
            if not found or found.info.run_id == run_id:
                self._add(run_id, params, {})
                return run_id
            self._connection.client.delete_run(run_id)  # another process was faster
        run_id = str(found.info.run_id)
        self._connection.client.update_run(run_id, status="RUNNING")
        self._add(run_id, params, {**tags, "bench.process": this_process()})
        return run_id

    def _add(self, run_id: str, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Write those params that a run has not, and tags; another process may be writing the same."""
        for last in (False, True):
            there = self._connection.client.get_run(run_id).data.params
            try:
                self.write(run_id, [], {k: v for k, v in params.items() if legal_name(k) not in there}, tags)
            except InputError:
                if last:
                    raise
            else:
                return

    def _earliest(self, condition: str) -> Any:
        found = self._connection.search(condition)
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def write(
        self, run_id: str, points: list[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> None:
        """Write values, params and tags in as few batches as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        values = [Metric(legal_name(p.name), p.value, p.milliseconds, p.step) for p in points]
        settings = [Param(*item) for item in _texts(params, LONGEST_PARAM).items()]
        labels = [RunTag(*item) for item in _texts(tags, LONGEST_TAG).items()]
        while values or settings or labels:
            self._connection.client.log_batch(run_id, values[:METRICS], settings[:OTHERS], labels[:OTHERS])
            values, settings, labels = values[METRICS:], settings[OTHERS:], labels[OTHERS:]

    def describe_experiment(self, text: str) -> None:
        """Say in Markdown what the experiment is about; MLflow shows it above its runs."""
        self._connection.client.set_experiment_tag(self._connection.experiment_id, NOTE, text)

    def upload(self, run_id: str, name: str, file: Path) -> None:
        """Keep a file as an artifact under the name given, whatever it is called on disk."""
        target = PurePosixPath(name)
        with tempfile.TemporaryDirectory() as temporary:
            link = Path(temporary) / target.name
            link.symlink_to(file.resolve())
            folder = str(target.parent) if target.parent.name else None
            self._connection.client.log_artifact(run_id, str(link), folder)
        self._sync(run_id, name)

    def upload_folder(self, run_id: str, folder: Path, name: str) -> None:
        """Keep all files of a folder as artifacts below a name."""
        self._connection.client.log_artifacts(run_id, str(folder), name)
        for file in folder.rglob("*"):
            if file.is_file():
                self._sync(run_id, str(PurePosixPath(name, file.relative_to(folder).as_posix())))

    def _sync(self, run_id: str, name: str) -> None:
        """Wait until an artifact in a folder of this machine is on its disk: what follows says that it is."""
        file = self._connection.artifact_file(run_id, name)
        if file:
            with self._connection.client.explained():
                files.sync_up_to(file, file.parents[len(PurePosixPath(name).parts) + 2])

    def log_dataset(self, run_id: str, name: str, sha256: str, origin: str) -> None:
        """Say which data a run is about; MLflow keeps 36 characters of the digest.

        A name that is too long is a path: its end tells more than its beginning.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = _text(canonical_json({"origin": origin}), LONGEST_SOURCE)
        data = Dataset(_text(name[-LONGEST_DATASET:], LONGEST_DATASET), sha256[:36], "local", source)
        context = [DatasetInput(data, [InputTag("mlflow.data.context", "transfer")])]
        try:
            self._connection.client.log_inputs(run_id, context)
        except RefusedError:  # another process has just written the same one: now it is found
            self._connection.client.log_inputs(run_id, context)

    def close(self, run_id: str, status: End, milliseconds: int | None = None) -> None:
        """End a run; `milliseconds` since 1970, when it ended: now, if None."""
        self._connection.client.set_terminated(run_id, status, milliseconds)

    def end_leftover(self, run_id: str) -> None:
        """End a run as KILLED, unless it has ended by what its process left to be delivered."""
        if self._connection.client.get_run(run_id).info.status == "RUNNING":
            self._connection.client.set_terminated(run_id, "KILLED")


def legal_name(text: str) -> str:
    """Return a name that MLflow accepts: letters, digits, `_ - . : ` and blanks, in a plain relative path."""
    parts = re.sub(r"[^\w\-. /:]", "_", text)[:LONGEST_NAME].split("/")
    return "/".join(part for part in parts if part not in {"", ".", ".."}) or "_"


def _texts(values: Mapping[str, Any], longest: int) -> dict[str, str]:
    return {legal_name(name): _text(value, longest) for name, value in values.items()}


def _text(value: Any, longest: int) -> str:
    """Return a text that every database takes: no NUL, no half of a surrogate pair, and not too long."""
    text = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode()[:longest]


@cache
def _origin() -> dict[str, str]:
    """Return the tags that MLflow's fluent interface sets and its client does not."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    tags = {"mlflow.user": user, "mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
    commit = git_commit(Path.cwd()).removesuffix("-dirty")
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags
