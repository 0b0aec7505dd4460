"""What a job needs of the machine that it is done on, and whether that is known to this machine alone.

A scheduler over several machines gives what is local its place on each of them, and replaces what must be
known to all. Two more things are local, and may be: frozen features, which are computed again elsewhere, and
the outbox of the run store, which is delivered from where it is.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import Arm
from bench.system import locations, locks


class Claims(Protocol):
    """Keep two commands from doing the same work at the same time."""

    is_local: ClassVar[bool]  # they hold among the processes of one machine only

    def claim(self, *work: object) -> AbstractContextManager[bool]:
        """Hold a piece of work, named by JSON values; the context is whether it was free."""

    def alone(self, kind: str, name: str) -> AbstractContextManager[None]:
        """Wait until no other command is between the same two lines."""

    def take_part(self, study: str, *, alone: bool) -> AbstractContextManager[None]:
        """Run a study beside others, or alone; InputError if the one excludes the other."""


class Checkpoints(Protocol):
    """Runs in flight: what is lost of one costs time, and no result."""

    @property
    def is_local(self) -> bool:
        """Whether a run goes on only where it was begun."""

    def forget(self, arm: Arm) -> None:
        """Remove those of an arm."""


@dataclass(frozen=True)
class FileClaims:
    """Claims by locked files in BENCH_HOME, which the system releases if a process dies."""

    is_local: ClassVar[bool] = True

    def claim(self, *work: object) -> AbstractContextManager[bool]:
        """Hold a piece of work: see `Claims`."""
        return locks.claimed(locks.lock_file("jobs", digest(list(work))[:32]))

    def alone(self, kind: str, name: str) -> AbstractContextManager[None]:
        """Wait for others: see `Claims`."""
        return locks.locked(locks.lock_file(kind, name))

    def take_part(self, study: str, *, alone: bool) -> AbstractContextManager[None]:
        """Run a study: see `Claims`."""
        return _Part(study, alone)


class _Part(AbstractContextManager[None]):
    """One of the commands that run a study."""

    def __init__(self, study: str, alone: bool) -> None:
        self._study, self._alone = study, alone
        self._lock = locks.locked(locks.lock_file("studies", study), wait=False, shared=not alone)

    def __enter__(self) -> None:
        try:
            self._lock.__enter__()
        except BlockingIOError as error:
            what = f"another process is running the study {self._study}"
            remedy = (
                "without --fresh it would help it" if self._alone else "with --fresh, which must be alone"
            )
            raise InputError(what, str(locations.home()), remedy) from error

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(None, None, None)


@dataclass(frozen=True)
class CheckpointFolder:
    """Checkpoints as files; where machines share the folder a run that one lost goes on at another."""

    folder: Path

    @property
    def is_local(self) -> bool:
        """See `Checkpoints`."""
        return self.folder == locations.home() / "checkpoints"

    def forget(self, arm: Arm) -> None:
        """Remove those of an arm: see `Checkpoints`."""
        for path in self.folder.glob(f"*{arm.key}*"):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Machine:
    """Where jobs are done."""

    claims: Claims
    checkpoints: Checkpoints


def this_machine() -> Machine:
    """Return the machine that this process runs on; its files are in BENCH_HOME."""
    return Machine(FileClaims(), CheckpointFolder(locations.checkpoints()))
