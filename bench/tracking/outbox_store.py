"""A run store that may go away while a study runs: what is logged waits and is delivered later."""

import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, StoreAwayError
from bench.core.hashing import digest
from bench.core.runs import RunResult, RunSpec
from bench.system import locations
from bench.tracking import store_uri
from bench.tracking.frames import FoundRun
from bench.tracking.live_run import NOTHING, End, Point
from bench.tracking.outbox import Spool
from bench.tracking.reader import ENDED
from bench.tracking.store import RunStore

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between two tries to reach a store that is away
BEGUN = "bench.begun"  # the tag by which a run is known before the store has given it an id
OPENED = (
    "bench.opened."  # the same of one that was there before, with what stood for its id: it may have several
)
WAITING = "waiting-"  # prefix of an id that the store did not give


class PatientStore(RunStore):
    """The runs of one experiment, for a study that runs; see `RunStore`.

    What can't be written waits in `spool/` of BENCH_HOME. Whatever is begun next with the same BENCH_HOME and
    store delivers it first.
    """

    def __init__(self, uri: str | None, experiment: str, experiment_id: str = "") -> None:
        super().__init__(uri, experiment, experiment_id=experiment_id)
        self._spool = Spool(locations.home() / "spool" / digest([self.uri, experiment])[:16])
        self._ids: dict[str, str] = {}
        self._known: dict[str, FoundRun] = {}
        self._pause, self._try_at = SHORTEST_PAUSE, 0.0
        self._delivering = False
        if not self._spool.is_empty:
            self._try_again()

    def settle(self) -> None:
        """Deliver what waits.

        Raises:
            StoreAwayError: if the store is still away.
        """
        self._try_at = 0.0
        if not self._spool.is_empty and not self._try_again():
            what = (
                f"the run store is away; {len(self._spool.waiting())} writes to it wait in {locations.home()}"
            )
            raise StoreAwayError(
                what, store_uri.shown(self.uri), "the same command delivers them once it is back"
            )

    def write(
        self, run_id: str, points: list[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> None:
        """Write values, params and tags, now or later."""
        texts = [{name: str(value) for name, value in some.items()} for some in (params, tags)]
        self._now_or_later("write", run_id, [list(point) for point in points], *texts)

    def upload(self, run_id: str, name: str, file: Path) -> None:
        """Keep a file as an artifact, now or later."""
        self._now_or_later("upload", run_id, name, file)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as an artifact, now or later."""
        self._now_or_later("log_text", run_id, text, name)

    def log_dataset(self, run_id: str, name: str, sha256: str, origin: str) -> None:
        """Say which data a run is about, now or later."""
        self._now_or_later("log_dataset", run_id, name, sha256, origin)

    def close(self, run_id: str, status: End, milliseconds: int | None = None) -> None:
        """End a run, now or later; it ended now."""
        self._now_or_later("close", run_id, status, milliseconds or time.time_ns() // 1_000_000)

    def _create(self, name: str, tags: Mapping[str, Any], milliseconds: int | None = None) -> str:
        begun, now = str(tags.get(BEGUN, "")) or uuid.uuid4().hex, milliseconds or time.time_ns() // 1_000_000
        texts = {key: str(value) for key, value in tags.items()}
        return self._now_or_later("create", begun, name, texts, now) or WAITING + begun

    def _open(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        begun = uuid.uuid4().hex
        texts = [{key: str(value) for key, value in some.items()} for some in (tags, params)]
        return self._now_or_later("open", begun, name, *texts) or WAITING + begun

    def fail_leftovers(self, study_run_id: str, *, at_the_end: bool = False) -> int:
        """End what a killed process left RUNNING, if the store can be asked for it."""
        with suppress(StoreAwayError):
            return super().fail_leftovers(self._real(study_run_id), at_the_end=at_the_end)
        return 0

    def end_leftover(self, run_id: str) -> None:
        """End a run that a killed process left, now or after what it had left to be delivered."""
        self._now_or_later("end_leftover", run_id)

    def find(self, keys: Iterable[str], tags: Mapping[str, str] = NOTHING) -> dict[str, FoundRun]:
        """Return the final runs that are DONE; of a store that is away, those that were found before."""
        wanted = list(keys)
        with suppress(StoreAwayError):
            self._known |= super().find(wanted, tags)
        return {key: self._known[key] for key in wanted if key in self._known}

    def has_ended(self, key: str, since: float, tags: Mapping[str, str] = NOTHING) -> bool:
        """Say whether a final run has ended, in the store or in what waits for it."""
        if key in self._waiting_keys():
            return True
        with suppress(StoreAwayError):
            return super().has_ended(key, since, tags)
        return key in self._known

    def result(self, spec: RunSpec, tags: Mapping[str, str]) -> RunResult | None:
        """Return what came of a trial, if it is stored and the store can be asked.

        Raises:
            StoreAwayError: if it is done and can't be delivered: it must not be done again.
        """
        if spec.key in self._waiting_keys():
            self.settle()
        with suppress(StoreAwayError):
            return super().result(spec, tags)
        return None

    def _now_or_later(self, name: str, *arguments: Any) -> str | None:
        """Do a call now and return what it gives; put it with those that wait if it can't be done."""
        if self._delivering:  # it is part of a call that waited
            return self._do(name, *arguments)
        if self._spool.is_empty or self._try_again():
            try:
                return self._do(name, *arguments)
            except StoreAwayError as error:
                log.warning(
                    "bench: %s; training goes on, what is logged waits in %s", error, locations.home()
                )
                self._wait_longer()
        try:
            self._spool.add(name, *arguments)
        except OSError as error:
            what = f"neither the run store nor the disk takes what is to be logged ({error.strerror})"
            remedy = "make room; the same command goes on from here"
            raise InputError(what, str(locations.home()), remedy) from error
        return None

    def _try_again(self) -> bool:
        """Deliver what waits, if it is time to try; say whether all of it is delivered."""
        if time.monotonic() < self._try_at:
            return False
        self._delivering = True
        try:
            count = self._spool.deliver(self._deliver)
        except StoreAwayError:
            self._wait_longer()
            return False
        finally:
            self._delivering = False
        self._pause, self._try_at = SHORTEST_PAUSE, 0.0
        if count:
            log.warning("bench: the run store is back; %d writes that waited are delivered", count)
        return self._spool.is_empty

    def _wait_longer(self) -> None:
        self._try_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _deliver(self, name: str, *arguments: Any) -> None:
        """Do a call that waited; one that the store refuses for good must not hold up the others."""
        try:
            self._do(name, *arguments)
        except StoreAwayError:
            raise
        except InputError as error:
            log.warning("bench: a write that waited is refused: %s", error)

    def _do(self, name: str, *arguments: Any) -> str | None:
        """Do a call; each gives the same if it is done twice."""
        first, *rest = arguments
        if name == "create":
            return self._create_once(first, *rest)
        if name == "open":
            title, tags, params = rest
            opened = {OPENED + first: "later"} if self._delivering else {}
            return super()._open(title, {**self._with_parent(tags), **opened}, params)
        run_id = self._real(first)
        if name == "write":
            points, params, tags = rest
            super().write(run_id, [Point(*point) for point in points], params, tags)
        elif name == "upload":
            if not Path(rest[1]).exists():  # to MLflow this would look like a store that is away
                raise InputError("the file that was to be kept is gone", str(rest[1]))
            super().upload(run_id, rest[0], Path(rest[1]))
        elif name == "log_text":
            super().log_text(run_id, *rest)
        elif name == "log_dataset":
            super().log_dataset(run_id, *rest)
        elif name == "close":
            super().close(run_id, *rest)
        elif name == "end_leftover":
            super().end_leftover(run_id)
        return None

    def _create_once(self, begun: str, name: str, tags: Mapping[str, str], milliseconds: int) -> str:
        """Create a run, unless an earlier try did whose answer was lost."""
        if not self._spool.is_empty and (found := self._search(f"tags.\"{BEGUN}\" = '{begun}'")):
            return str(found[0].info.run_id)
        return super()._create(name, {**self._with_parent(tags), BEGUN: begun}, milliseconds)

    def _with_parent(self, tags: Mapping[str, str]) -> dict[str, str]:
        parent = tags.get("mlflow.parentRunId")
        return {**tags, "mlflow.parentRunId": self._real(parent)} if parent else dict(tags)

    def _real(self, run_id: str) -> str:
        """Return the store's id of a run that was begun while it was away."""
        if not run_id.startswith(WAITING):
            return run_id
        if run_id not in self._ids:
            begun = run_id.removeprefix(WAITING)
            created, opened = f"tags.\"{BEGUN}\" = '{begun}'", f"tags.\"{OPENED}{begun}\" = 'later'"
            found = self._search(created) or self._search(opened)
            if not found:
                raise StoreAwayError(f"the run {run_id} is not delivered yet", store_uri.shown(self.uri))
            self._ids[run_id] = str(found[0].info.run_id)
        return self._ids[run_id]

    def _waiting_keys(self) -> set[str]:
        """Return the run keys of which a result waits to be delivered."""
        if self._spool.is_empty:
            return set()
        calls = self._spool.waiting()
        done = {args[0] for name, args in calls if name == "close" and args[1] in ENDED}
        tags = [args[3] for name, args in calls if name == "write" and args[0] in done]
        return {own["bench.run_key"] for own in tags if "bench.run_key" in own}
