"""A run that is going on: its values are collected and written together, as each write costs milliseconds."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from bench.core.errors import InputError, RunGoneError
from bench.core.hashing import canonical_json
from bench.core.runs import RunResult, Status
from bench.tracking.frames import COSTS

log = logging.getLogger(__name__)

FLUSH_SECONDS, LONGEST_PAUSE = 5.0, 300.0  # between two writes; the same while the store is gone
FILES = "bench.files"  # the tag with a run's files and their bytes, without which it is not whole
CURVE = "curve/"  # prefix of what is measured at each evaluation
NOTHING: Mapping[str, Any] = MappingProxyType({})

End = Literal["FINISHED", "FAILED", "KILLED"]


class Point(NamedTuple):
    """A value of a metric at a step, and when it was measured (milliseconds since 1970)."""

    name: str
    value: float
    milliseconds: int
    step: int


class Writer(Protocol):
    """What a live run needs of the store; each method raises InputError if the store can't be used."""

    def write(
        self, run_id: str, points: list[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> None:
        """Write values, params and tags."""

    def upload(self, run_id: str, name: str, file: Path) -> None:
        """Keep a file under a name."""

    def close(self, run_id: str, status: End) -> None:
        """End the run."""


class LiveRun:
    """A run that is going on.

    Args:
        writer: the store.
        begin: begins the run and returns its id; asked again if the run is removed from the store.
        params: written with the first values.
    """

    def __init__(self, writer: Writer, begin: Callable[[], str], params: Mapping[str, Any]) -> None:
        self.run_id = begin()
        self._writer, self._begin = writer, begin
        self._all_params = self._params = params
        self._points: list[Point] = []
        self._steps: set[int] = set()
        self._not_finite: list[str] = []
        self._pause = FLUSH_SECONDS
        self._flush_at = time.monotonic() + FLUSH_SECONDS

    def log_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the values of an evaluation; at most every five seconds all that was taken is written.

        If the store is gone the values are kept and written later: a run of hours doesn't end for that.
        """
        self._take_evaluation(step, metrics)
        if time.monotonic() < self._flush_at:
            return
        try:
            self._writer.write(self.run_id, self._points, self._params, NOTHING)
        except InputError:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._points, self._params, self._pause = [], NOTHING, FLUSH_SECONDS
        self._flush_at = time.monotonic() + self._pause

    def finish(self, result: RunResult, files: Mapping[str, Path] = NOTHING) -> None:
        """Write what is left, the files and the result, then end the run: one that is FINISHED is complete.

        Args:
            result: what of its curve was not logged live is logged now.
            files: name in the store to file (`predictions.csv`, `weights/best.safetensors`).

        Raises:
            InputError: if the store can't be reached.
        """
        try:
            self._finish(result, files)
        except RunGoneError as error:
            log.warning("bench: %s; it is made again", error)
            self.run_id, self._params = self._begin(), self._all_params
            self._points, self._steps, self._not_finite = [], set(), []
            self._finish(result, files)

    def _finish(self, result: RunResult, files: Mapping[str, Path]) -> None:
        for row in result.curve:
            if int(row["step"]) not in self._steps:
                self._take_evaluation(int(row["step"]), row)
        self._take(result.metrics, result.best_step)
        self._take({name: getattr(result, name) for name in COSTS}, 0)
        for name, file in files.items():
            self._writer.upload(self.run_id, name, file)
        spec = result.spec
        tags = {
            "bench.run_key": spec.key,  # what waits to be delivered is known by this and the next three
            "bench.arm_key": spec.arm.key,
            "seed": str(spec.seed),
            "purpose": spec.purpose.value,
            "bench.status": result.status.value,
            "bench.environment": canonical_json(dict(result.environment)),
            "bench.error": result.error,
            FILES: canonical_json({name: file.stat().st_size for name, file in files.items()})
            if files
            else "",
            "bench.diverged": "yes" if result.diverged else "",
            "bench.not_finite": ", ".join(self._not_finite),
        }
        tags = {name: text for name, text in tags.items() if text}
        self._writer.write(self.run_id, self._points, self._params, tags)
        self._writer.close(self.run_id, "FAILED" if result.status is Status.FAILED else "FINISHED")

    def abandon(self) -> None:
        """End the run as KILLED, with what was logged so far; a store that is gone is left alone."""
        with suppress(InputError):
            self._writer.write(self.run_id, self._points, self._params, NOTHING)
            self._writer.close(self.run_id, "KILLED")

    def _take_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._steps.add(step)
        self._take({CURVE + name: value for name, value in metrics.items() if name != "step"}, step)

    def _take(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue values; MLflow would keep infinity as the largest float, so it is only named."""
        now = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            if math.isfinite(value):
                self._points.append(Point(name, float(value), now, step))
            else:
                self._not_finite.append(f"{name} at {step}: {value}")
