"""What can't be written to the run store now waits on disk and is written later: in order, and once."""

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.system.files import drop_half_line, write_text
from bench.system.locks import locked

log = logging.getLogger(__name__)


class Spool:
    """Calls that wait, as JSON lines; all processes that write to one experiment share it.

    A call is done before the count of those done is raised: a process that dies between the two leaves one
    that is done again, so each must give the same if it is done twice.

    Args:
        folder: its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls, self._done = folder / "calls.jsonl", folder / "done"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._calls.exists()

    def waiting(self) -> list[tuple[str, list[Any]]]:
        """Return the calls that wait: name and arguments."""
        return list(self._read())[self._count() :]

    def add(self, name: str, *arguments: Any) -> None:
        """Let a call wait.

        Args:
            name: of the call.
            arguments: of JSON types, or paths of files, which are copied.
        """
        with locked(
            self._folder / "adding.lock"
        ):  # also for the files: who delivers the last call removes all
            kept = [str(self._keep(a)) if isinstance(a, Path) else a for a in arguments]
            drop_half_line(self._calls)
            with self._calls.open("ab") as file:
                file.write(json.dumps([name, kept]).encode() + b"\n")

    def deliver(self, do: Callable[..., None]) -> int:
        """Do the calls that wait; return how many.

        Args:
            do: takes name and arguments; what it raises ends the delivery, and its call goes on waiting.
        """
        count = 0
        try:
            with locked(self._folder / "delivering.lock", wait=False):
                while waiting := self.waiting():
                    for name, arguments in waiting:
                        do(name, *arguments)
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
                self._calls.unlink(missing_ok=True)
                shutil.rmtree(self._folder / "files", ignore_errors=True)

    def _count(self) -> int:
        """Return how many calls are done."""
        return int(self._done.read_text()) if self._done.exists() else 0

    def _read(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield all whole lines; a process that died may have left half a one at the end."""
        if not self.is_empty:
            for line in self._calls.read_bytes().split(b"\n")[:-1]:
                name, arguments = json.loads(line)
                yield name, arguments

    def _keep(self, file: Path) -> Path:
        kept = self._folder / "files" / uuid.uuid4().hex
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept)
        return kept
