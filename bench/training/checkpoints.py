"""A run in flight on disk, so that a process that dies, or is asked to stop, loses seconds and not hours."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from bench.core.versions import CHECKPOINT
from bench.system.files import replacing
from bench.system.locations import checkpoints
from bench.system.signals import pause_seconds
from bench.training.problem import Trained

log = logging.getLogger(__name__)

MOST_SHARE = 0.02  # of a run's time that writing may take


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run after a whole step: all that decides the steps to come.

    Args:
        conditions: under which it goes on to the numbers of an undisturbed run: versions, device, images.
        phase: the number of the phase under way.
        first_place: of that phase in the curve; its course follows from the curve.
        trained: what came of it so far.
        model: the tensors that the plan lets change.
        optimizer: its state, as torch has it.
        losses: of the steps since the last evaluation, each times its images; shape (steps,).
        rate: the learning rate of the last step.
        random: the state of torch's generator on the CPU.
        random_cuda: of that on the GPU; None where there is none.
    """

    conditions: Mapping[str, str | int]
    phase: int
    first_place: int
    trained: Trained
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    losses: Tensor
    rate: float
    random: Tensor
    random_cuda: Tensor | None

    def as_plain(self) -> dict[str, Any]:
        """Return it as tensors and plain values, with its version."""
        return {"version": CHECKPOINT, **_values(self), "trained": _values(self.trained)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self | None:
        """Return what `as_plain` gave; None if that was of another version.

        Raises:
            KeyError, TypeError: if a part is missing or unknown.
        """
        if values.get("version") != CHECKPOINT:
            return None
        own = {name: value for name, value in values.items() if name != "version"}
        return cls(**{**own, "trained": Trained(**own["trained"])})


def _values(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; `asdict` would copy every tensor."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


class CheckpointFile:
    """The checkpoint of one run, in `locations.checkpoints`; it is gone when the run has ended.

    It holds tensors and plain values only and is read without unpickling anything else.

    Args:
        key: of the run.
    """

    def __init__(self, key: str) -> None:
        self._path = checkpoints() / f"{key}.pt"
        self._pause = pause_seconds()
        self._due = time.monotonic() + self._pause

    @property
    def is_due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() >= self._due

    def load(self) -> Checkpoint | None:
        """Return what was saved; None if there is nothing of this version, or nothing that can be read."""
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            return Checkpoint.from_plain(saved)
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - half a file can make the parser raise anything
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            log.warning("the checkpoint %s can't be read (%s): its run begins anew", self._path, reason)
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, under a temporary name first; without room for it the run goes on."""
        started = time.monotonic()
        try:
            with replacing(self._path) as temporary:
                torch.save(checkpoint.as_plain(), temporary)
        except (OSError, RuntimeError) as error:  # torch raises its own for a disk that is full
            reason = str(error).splitlines()[0][:120]
            log.warning("no checkpoint could be written to %s (%s)", self._path.parent, reason)
        now = time.monotonic()
        self._due = now + max(self._pause, (now - started) / MOST_SHARE)

    def remove(self) -> None:
        """Remove the file, and what a killed process left beside it."""
        for path in [self._path, *self._path.parent.glob(f".{self._path.name}.*")]:
            path.unlink(missing_ok=True)
