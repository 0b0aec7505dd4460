"""Write to a run store that may go away while a study runs: what it can't take waits in the outbox."""

import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, NotDeliveredError, RefusedError, RunGoneError, StoreAwayError
from bench.system import locations
from bench.tracking import store_uri
from bench.tracking.client import may_be_refusal
from bench.tracking.connection import Connection
from bench.tracking.live_run import End, Point
from bench.tracking.operations import (
    PROVISIONAL,
    Close,
    CreateRun,
    EndLeftover,
    LogDataset,
    OpenRun,
    Operation,
    ProvisionalIds,
    RunOperation,
    Upload,
    Write,
)
from bench.tracking.outbox import Outbox
from bench.tracking.writer import Writer

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between two tries to reach a store that is away


class OutboxWriter:
    """Writes now, or later if the store is away; whatever is begun next with the same outbox delivers first.

    A run that is begun while the store is away has a provisional id, which each method takes.
    """

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection, self._outbox = connection, outbox
        self._writer, self._ids = Writer(connection), ProvisionalIds(connection)
        self._pause, self._try_at = SHORTEST_PAUSE, 0.0
        self._absence = StoreAwayError("the run store is away")
        if not outbox.is_empty:
            self.try_again()

    def create_run(self, name: str, tags: Mapping[str, Any], milliseconds: int | None = None) -> str:
        """Begin a run; return its id, or a provisional one."""
        token, now = uuid.uuid4().hex, milliseconds or time.time_ns() // 1_000_000
        return self._perform(CreateRun(token, name, _texts(tags), now)) or PROVISIONAL + token

    def open_run(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Open the run of a key; return its id, or a provisional one."""
        token = uuid.uuid4().hex
        return self._perform(OpenRun(token, name, _texts(tags), _texts(params))) or PROVISIONAL + token

    def write(
        self, run_id: str, points: list[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> None:
        """Write values, params and tags, now or later."""
        self._perform(Write(run_id, list(map(list, points)), _texts(params), _texts(tags)))

    def upload(self, run_id: str, name: str, file: Path) -> None:
        """Keep a file as an artifact, now or later."""
        self._perform(Upload(run_id, name, str(file)))

    def upload_folder(self, run_id: str, folder: Path, name: str) -> None:
        """Keep all files of a folder as artifacts below a name, now: they can be made again."""
        self._writer.upload_folder(self.resolve(run_id), folder, name)

    def describe_experiment(self, text: str) -> None:
        """Say what the experiment is about, now: it can be said again."""
        self._writer.describe_experiment(text)

    def log_dataset(self, run_id: str, name: str, sha256: str, origin: str) -> None:
        """Say which data a run is about, now or later."""
        self._perform(LogDataset(run_id, name, sha256, origin))

    def close(self, run_id: str, status: End, milliseconds: int | None = None) -> None:
        """End a run, now or later; it ended now. One that was removed for good has ended."""
        try:
            self._perform(Close(run_id, status, milliseconds or time.time_ns() // 1_000_000))
        except RunGoneError as error:
            log.warning("bench: a run that was to be ended is gone: %s", error)

    def end_leftover(self, run_id: str) -> None:
        """End a run that a killed process left, now or after what it had left to be delivered."""
        self._perform(EndLeftover(run_id))

    def resolve(self, run_id: str) -> str:
        """Return the store's id of a run; raises StoreAwayError if it has none yet."""
        return self._ids.resolve(run_id)

    def settle(self) -> None:
        """Deliver what waits.

        Raises:
            StoreAwayError: if the store is still away.
        """
        self._try_at = 0.0
        if not self._outbox.is_empty and not self.try_again():
            count = len(self._outbox.waiting())
            deleted = "was deleted" in self._absence.what
            why = self._absence.what if deleted else "the run store is away"
            remedy = "the same command delivers them once it is back"
            raise StoreAwayError(
                f"{why}; {count} writes to it wait in {locations.home()}",
                store_uri.shown(self._connection.uri),
                f"{self._absence.remedy}; {remedy}" if deleted else remedy,
            )

    def try_again(self) -> bool:
        """Deliver what waits, if it is time to try; say whether all of it is delivered."""
        if time.monotonic() < self._try_at:
            return False
        try:
            count = self._outbox.deliver(self._deliver)
        except StoreAwayError as error:
            self._wait_longer(error)
            return False
        self._pause, self._try_at = SHORTEST_PAUSE, 0.0
        if count:
            log.warning("bench: the run store is back; %d writes that waited are delivered", count)
        return self._outbox.is_empty

    def _perform(self, operation: Operation) -> str:
        """Apply an operation now and return the run's id; put it in the outbox if it can't be done."""
        if self._outbox.is_empty or self.try_again():
            try:
                return self._apply(operation, waited=False)
            except StoreAwayError as error:
                log.warning(
                    "bench: %s; training goes on, what is logged waits in %s", error, locations.home()
                )
                self._wait_longer(error)
            except RunGoneError:
                raise
            except RefusedError as error:
                if not isinstance(operation, RunOperation):
                    raise
                self._outbox.set_aside(operation, str(error))
                return operation.run_id
        try:
            self._outbox.add(operation)
        except OSError as error:
            what = f"neither the run store nor the disk takes what is to be logged ({error.strerror})"
            remedy = "make room; the same command goes on from here"
            raise InputError(what, str(locations.home()), remedy) from error
        return ""

    def _deliver(self, operation: Operation) -> None:
        self._apply(operation, waited=True)

    def _apply(self, operation: Operation, *, waited: bool) -> str:
        """Apply an operation; what was deleted under it is restored first.

        Raises:
            RefusedError: if the store is there and refuses it.
            StoreAwayError: if the store can't be reached, or the experiment was deleted.
        """
        try:
            return operation.apply(self._writer, self._ids, waited=waited)
        except NotDeliveredError as error:  # what came before it in the outbox was delivered
            raise RunGoneError(error.what, error.where) from error
        except StoreAwayError as error:
            if not (may_be_refusal(error) and self._connection.answers()):
                raise
        except RefusedError:
            if not self._is_restored(operation):
                raise
        try:
            return operation.apply(self._writer, self._ids, waited=waited)
        except StoreAwayError as error:
            if may_be_refusal(error) and self._connection.answers():
                raise RefusedError(error.what, error.where) from error
            raise

    def _is_restored(self, operation: Operation) -> bool:
        """Say whether what an operation is about had been deleted, and is there again."""
        if isinstance(operation, RunOperation):
            return self._connection.restore_run(self._ids.resolve(operation.run_id))
        self._connection.require_experiment()
        return False

    def _wait_longer(self, error: StoreAwayError) -> None:
        self._absence = error
        self._try_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
