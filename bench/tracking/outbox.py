"""Writes that wait on disk until the run store takes them: in order, and once."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.system.files import drop_half_line, write_text
from bench.system.locks import locked
from bench.tracking.operations import Close, Operation, Write, as_line, from_line
from bench.tracking.reader import ENDED

log = logging.getLogger(__name__)


class Outbox:
    """Operations that wait, as JSON lines; all processes that write to one experiment share it.

    An operation is applied before the count of those applied is raised: a process that dies between the two
    leaves one that is applied again, so each must give the same if it is done twice.

    Args:
        folder: its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries, self._done = folder / "operations.jsonl", folder / "done"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._entries.exists()

    def waiting(self) -> list[Operation]:
        """Return the operations that wait."""
        return list(self._read())[self._count() :]

    def ended_keys(self) -> set[str]:
        """Return the run keys of which a result waits to be delivered."""
        if self.is_empty:
            return set()
        waiting = self.waiting()
        ended = {op.run_id for op in waiting if isinstance(op, Close) and op.status in ENDED}
        tags = [op.tags for op in waiting if isinstance(op, Write) and op.run_id in ended]
        return {own["bench.run_key"] for own in tags if "bench.run_key" in own}

    def add(self, operation: Operation) -> None:
        """Let an operation wait; its files are copied."""
        with locked(
            self._folder / "adding.lock"
        ):  # also for the files: who delivers the last operation removes all
            line = as_line(operation.with_files_in(self._folder / "files"))
            drop_half_line(self._entries)
            with self._entries.open("ab") as file:
                file.write(line)

    def deliver(self, apply: Callable[[Operation], None]) -> int:
        """Apply the operations that wait; return how many.

        Args:
            apply: what it raises ends the delivery, and its operation goes on waiting.
        """
        count = 0
        try:
            with locked(self._folder / "delivering.lock", wait=False):
                while waiting := self.waiting():
                    for operation in waiting:
                        apply(operation)
                        write_text(self._done, str(self._count() + 1))
                        count += 1
                self._remove()
        except BlockingIOError:  # another process is at it
            pass
        return count

    def _remove(self) -> None:
        """Remove what is delivered, unless more has come meanwhile."""
        with locked(self._folder / "adding.lock"):
            if not self.waiting():
                self._done.unlink(missing_ok=True)  # first: done again is right, never done is not
                self._entries.unlink(missing_ok=True)
                shutil.rmtree(self._folder / "files", ignore_errors=True)

    def _count(self) -> int:
        """Return how many operations are done."""
        return int(self._done.read_text()) if self._done.exists() else 0

    def _read(self) -> Iterator[Operation]:
        """Yield all whole lines; a process that died may have left half a one at the end."""
        if not self.is_empty:
            yield from map(from_line, self._entries.read_bytes().split(b"\n")[:-1])
