"""Writes that wait on disk until the run store takes them: in order, and once."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from bench.core.errors import InputError, StoreAwayError
from bench.system.files import drop_half_line, sync, sync_up_to, write_text
from bench.system.locks import locked
from bench.tracking.operations import Close, Operation, Write, as_line, from_line
from bench.tracking.reader import ENDED

log = logging.getLogger(__name__)


class Outbox:
    """Operations that wait, as JSON lines; all processes that write to one experiment share it.

    An operation is applied before the count of those applied is raised: a process that dies between the two
    leaves one that is applied again, so each must give the same if it is done twice. What the store refuses,
    or can't be read, is set aside in `refused.jsonl` with the reason. All of it survives a power cut.

    Args:
        folder: its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries, self._done = folder / "operations.jsonl", folder / "done"
        self._refused = folder / "refused.jsonl"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._entries.exists()

    def waiting(self) -> list[Operation]:
        """Return the operations that wait; what can't be read is left out."""
        return [op for op in map(_readable, self._lines()) if op]

    def ended_keys(self, having: Mapping[str, str] | None = None) -> set[str]:
        """Return the run keys of which a result waits to be delivered, of runs that have these tags."""
        if self.is_empty:
            return set()
        waiting = self.waiting()
        ended = {op.run_id for op in waiting if isinstance(op, Close) and op.status in ENDED}
        tags = [op.tags for op in waiting if isinstance(op, Write) and op.run_id in ended]
        return {
            own["bench.run_key"]
            for own in tags
            if "bench.run_key" in own and (having or {}).items() <= own.items()
        }

    def add(self, operation: Operation) -> None:
        """Let an operation wait; its files are copied."""
        with locked(
            self._folder / "adding.lock"
        ):  # also for the files: who delivers the last operation removes all
            line = as_line(operation.with_files_in(self._folder / "files"))
            drop_half_line(self._entries)
            with self._entries.open("ab") as file:
                file.write(line)
            sync(self._entries)
            sync(self._folder)

    def deliver(self, apply: Callable[[Operation], None]) -> int:
        """Apply the operations that wait; return how many.

        Args:
            apply: a StoreAwayError ends the delivery, and the operation goes on waiting; any other InputError
                sets it aside.
        """
        count = 0
        try:
            with locked(self._folder / "delivering.lock", wait=False):
                while lines := self._lines():
                    for line in lines:
                        self._deliver(line, apply)
                        write_text(self._done, str(self._count() + 1))
                        count += 1
                self._remove()
        except BlockingIOError:  # another process is at it
            pass
        return count

    def _deliver(self, line: bytes, apply: Callable[[Operation], None]) -> None:
        try:
            apply(from_line(line))
        except StoreAwayError:
            raise
        except (InputError, ValueError) as error:
            self._set_aside(line, str(error))

    def set_aside(self, operation: Operation, reason: str) -> None:
        """Keep an operation that the store refuses, with the reason: nothing else waits for it."""
        with locked(self._folder / "adding.lock"):
            self._set_aside(as_line(operation), reason)

    def _set_aside(self, line: bytes, reason: str) -> None:
        log.warning("bench: a write is refused and set aside in %s: %s", self._refused, reason)
        entry = {"at": time.time(), "reason": reason, "entry": line.decode(errors="replace").strip()}
        operation = _readable(line)
        if operation:
            with suppress(OSError):  # its file is gone: that is the reason
                kept = operation.with_files_in(self._folder / "refused")
                entry["entry"] = as_line(kept).decode().strip()
        drop_half_line(self._refused)
        with self._refused.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        sync_up_to(self._refused, self._folder)

    def _remove(self) -> None:
        """Remove what is delivered, unless more has come meanwhile."""
        with locked(self._folder / "adding.lock"):
            if not self._lines():
                self._done.unlink(missing_ok=True)  # first: done again is right, never done is not
                self._entries.unlink(missing_ok=True)
                sync(self._folder)
                shutil.rmtree(self._folder / "files", ignore_errors=True)

    def _count(self) -> int:
        """Return how many operations are done; where that can't be read, none: done again is right."""
        try:
            return int(self._done.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return 0

    def _lines(self) -> list[bytes]:
        """Return the whole lines that wait; a process that died may have left half a one at the end."""
        try:
            lines = self._entries.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        return lines[self._count() :]


def _readable(line: bytes) -> Operation | None:
    with suppress(ValueError):
        return from_line(line)
    return None
