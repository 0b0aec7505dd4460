"""The writes that can wait in the outbox: each knows how it is applied, and how it is put on a line of JSON.

A write may name a run by a provisional id: one that stands for the id that the store has not given yet.
"""

import json
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from bench.core.errors import NotDeliveredError, RefusedError
from bench.system.files import sync_up_to
from bench.tracking import store_uri
from bench.tracking.connection import Connection
from bench.tracking.live_run import End, Point
from bench.tracking.writer import Writer

VERSION = 1  # of the lines; raise it when an operation changes
PROVISIONAL = "provisional-"  # prefix of an id that the store did not give
BEGUN = "bench.begun"  # the tag by which a run is known before the store has given it an id
OPENED = "bench.opened."  # the same of one that was there before, followed by its token: it may have several
PARENT = "mlflow.parentRunId"


class ProvisionalIds:
    """The store's ids of runs that were begun while it was away."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[str, str] = {}

    def resolve(self, run_id: str) -> str:
        """Return the store's id of a run.

        Raises:
            NotDeliveredError: if the run is not in the store.
        """
        if not run_id.startswith(PROVISIONAL):
            return run_id
        if run_id not in self._ids:
            token = run_id.removeprefix(PROVISIONAL)
            found = self.begun(token) or self._first(f"tags.\"{OPENED}{token}\" = 'later'")
            if not found:
                where = store_uri.shown(self._connection.uri)
                raise NotDeliveredError(f"the run {run_id} is not in the store", where)
            self._ids[run_id] = found
        return self._ids[run_id]

    def begun(self, token: str) -> str:
        """Return the id of the run that was created with a token; empty if there is none."""
        return self._first(f"tags.\"{BEGUN}\" = '{token}'")

    def with_parent(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return tags with the store's id of the parent."""
        return {**tags, PARENT: self.resolve(tags[PARENT])} if tags.get(PARENT) else dict(tags)

    def _first(self, condition: str) -> str:
        found = self._connection.search(condition, deleted=True)
        return str(found[0].info.run_id) if found else ""


@dataclass(frozen=True)
class Operation(ABC):
    """A write to the store."""

    @abstractmethod
    def apply(self, writer: Writer, ids: ProvisionalIds, *, waited: bool) -> str:
        """Do it; return the id of the run. `waited`: it may have been done before, its answer lost."""

    def with_files_in(self, folder: Path) -> Self:  # noqa: ARG002 - most have none
        """Return the same with its files copied to a folder, for they may be gone when it is applied."""
        return self


@dataclass(frozen=True)
class CreateRun(Operation):
    """Begin a run."""

    token: str
    name: str
    tags: Mapping[str, str]
    milliseconds: int

    def apply(self, writer: Writer, ids: ProvisionalIds, *, waited: bool) -> str:
        """Create the run, unless an earlier try did whose answer was lost."""
        if waited and (run_id := ids.begun(self.token)):
            return run_id
        return writer.create_run(
            self.name, {**ids.with_parent(self.tags), BEGUN: self.token}, self.milliseconds
        )


@dataclass(frozen=True)
class OpenRun(Operation):
    """Open the run of a key, RUNNING, or begin it."""

    token: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]

    def apply(self, writer: Writer, ids: ProvisionalIds, *, waited: bool) -> str:
        """Open the run; one that was opened late is marked, for others know it by its provisional id."""
        mark = {OPENED + self.token: "later"} if waited else {}
        return writer.open_run(self.name, {**ids.with_parent(self.tags), **mark}, self.params)


@dataclass(frozen=True)
class RunOperation(Operation):
    """A write to a run that is there, or is before this one in the outbox."""

    run_id: str

    def apply(self, writer: Writer, ids: ProvisionalIds, *, waited: bool) -> str:  # noqa: ARG002
        """Do it; return the store's id of the run."""
        run_id = ids.resolve(self.run_id)
        self.apply_to(run_id, writer)
        return run_id

    @abstractmethod
    def apply_to(self, run_id: str, writer: Writer) -> None:
        """Do it to a run by the store's id."""


@dataclass(frozen=True)
class Write(RunOperation):
    """Write values (see `Point`), params and tags."""

    points: list[Any]
    params: Mapping[str, str]
    tags: Mapping[str, str]

    def apply_to(self, run_id: str, writer: Writer) -> None:
        """Write them."""
        writer.write(run_id, [Point(*point) for point in self.points], self.params, self.tags)


@dataclass(frozen=True)
class Upload(RunOperation):
    """Keep a file as an artifact."""

    name: str
    file: str

    def with_files_in(self, folder: Path) -> Self:
        """Return the same with a copy of its file."""
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / uuid.uuid4().hex
        shutil.copyfile(self.file, copy)
        sync_up_to(copy, folder.parent)
        return replace(self, file=str(copy))

    def apply_to(self, run_id: str, writer: Writer) -> None:
        """Upload it."""
        if not Path(self.file).exists():  # to MLflow this would look like a store that is away
            raise RefusedError("the file that was to be kept is gone", self.file)
        writer.upload(run_id, self.name, Path(self.file))


@dataclass(frozen=True)
class LogDataset(RunOperation):
    """Say which data a run is about."""

    name: str
    sha256: str
    origin: str

    def apply_to(self, run_id: str, writer: Writer) -> None:
        """Say it."""
        writer.log_dataset(run_id, self.name, self.sha256, self.origin)


@dataclass(frozen=True)
class Close(RunOperation):
    """End a run."""

    status: End
    milliseconds: int

    def apply_to(self, run_id: str, writer: Writer) -> None:
        """End it."""
        writer.close(run_id, self.status, self.milliseconds)


@dataclass(frozen=True)
class EndLeftover(RunOperation):
    """End a run that a killed process left."""

    def apply_to(self, run_id: str, writer: Writer) -> None:
        """End it, unless it has ended."""
        writer.end_leftover(run_id)


_KINDS: dict[str, type[Operation]] = {
    kind.__name__: kind for kind in (CreateRun, OpenRun, Write, Upload, LogDataset, Close, EndLeftover)
}


def as_line(operation: Operation) -> bytes:
    """Return an operation as a line of JSON."""
    content = {"version": VERSION, "operation": type(operation).__name__, **asdict(operation)}
    return json.dumps(content).encode() + b"\n"


def from_line(line: bytes) -> Operation:
    """Return the operation that a line holds.

    Raises:
        ValueError: if it is damaged, or was written by another version.
    """
    content = json.loads(line)
    if not isinstance(content, dict) or content.pop("version", None) != VERSION:
        raise ValueError(f"it is no operation of version {VERSION}")
    kind = _KINDS.get(content.pop("operation", ""))
    try:
        if kind:
            return kind(**content)
    except TypeError as error:
        raise ValueError(str(error)) from error
    raise ValueError("its operation is unknown")
