"""A run in flight on disk, so that a process that dies, or is asked to stop, loses seconds and not hours."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from bench.system.files import replacing
from bench.system.locations import home
from bench.system.signals import pause_seconds

log = logging.getLogger(__name__)

MOST_SHARE = 0.02  # of a run's time that writing may take


class Checkpoint:
    """The file of one run, in `checkpoints/` of BENCH_HOME; it is gone when the run has ended.

    It holds tensors and plain values only and is read without unpickling anything else.

    Args:
        key: of the run.
    """

    def __init__(self, key: str) -> None:
        self._path = home() / "checkpoints" / f"{key}.pt"
        self._pause = pause_seconds()
        self._due = time.monotonic() + self._pause

    @property
    def is_due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() >= self._due

    def load(self) -> dict[str, Any] | None:
        """Return what was saved; None if there is nothing, or nothing that can be read."""
        try:
            return dict(torch.load(self._path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - half a file can make the parser raise anything
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            log.warning("the checkpoint %s can't be read (%s): its run begins anew", self._path, reason)
            return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write what there is, under a temporary name first; without room for it the run goes on."""
        started = time.monotonic()
        try:
            with replacing(self._path) as temporary:
                torch.save(dict(state), temporary)
        except (OSError, RuntimeError) as error:  # torch raises its own for a disk that is full
            reason = str(error).splitlines()[0][:120]
            log.warning("no checkpoint could be written to %s (%s)", self._path.parent, reason)
        now = time.monotonic()
        self._due = now + max(self._pause, (now - started) / MOST_SHARE)

    def remove(self) -> None:
        """Remove the file, and what a killed process left beside it."""
        for path in [self._path, *self._path.parent.glob(f".{self._path.name}.*")]:
            path.unlink(missing_ok=True)
