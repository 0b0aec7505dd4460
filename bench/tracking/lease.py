"""A lease on a study, kept in the run store: of several drivers on any machines one hands out its jobs.

Every driver writes a claim, a tag of the experiment, and renews it. The store has no step that reads and
writes at once, so a claim counts only after a pause, in which all see each other (Lamport 1974, "A new
solution of Dijkstra's concurrent programming problem"); the earliest gets the lease. Clocks of two machines
decide nothing but who is first: a claim is stale if it is not renewed while somebody looks on. Should two
drivers ever hold the lease (one was asleep), results are right nevertheless: of two runs of one key the store
counts one.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Self

from bench.core.errors import InputError, RefusedError, StoreAwayError
from bench.system.processes import has_ended, this_process
from bench.tracking.connection import Connection

PREFIX = "bench.lease."  # of tags of the experiment
RENEWAL_SECONDS = 5.0
STALE_SECONDS = 30.0  # without a renewal, as seen by who waits
PAUSE_SECONDS = 2.0  # longer than a write takes until all read it


@dataclass(frozen=True)
class Claim:
    """One driver's.

    Args:
        since: seconds since 1970, by its clock.
        owner: of drivers that began at the same moment one is first.
        process: its process, see `system.processes`.
        term: which holder of the lease it is, counted from 1; 0: it waits.
        renewal: how often it was renewed.
    """

    since: float
    owner: str
    process: str
    term: int = 0
    renewal: int = 0

    @property
    def rank(self) -> tuple[int, float, str]:
        """What is least has the lease, or gets it: who took it over before who did not answer."""
        return (-self.term, self.since, self.owner)


@dataclass
class Lease:
    """Hold a study in a context; entering waits until no other driver has it.

    Args:
        connection: to the experiment.
        study: its name, for messages; an experiment is of one study.
        say: takes a line for the person who waits.
    """

    connection: Connection
    study: str
    say: Callable[[str], None]
    renewal_seconds: float = RENEWAL_SECONDS
    stale_seconds: float = STALE_SECONDS
    pause_seconds: float = PAUSE_SECONDS
    _claim: Claim = field(init=False)
    _seen: dict[str, tuple[Claim, float]] = field(default_factory=dict)  # by owner, with when it was new
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _lost: str = ""  # who has the lease that was ours

    def __enter__(self) -> Self:
        self._claim = Claim(time.time(), uuid.uuid4().hex[:12], this_process())
        self._write(self._claim)
        try:
            self._wait()
        except BaseException:
            self._withdraw()
            raise
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()
        self._withdraw()

    def check(self) -> None:
        """Raise InputError if another driver has taken the lease over: this one was thought to be dead."""
        if self._lost:
            what = f"another command took the study {self.study} over ({self._lost}): this one did not answer"
            raise InputError(what, self.connection.uri, "run it again: it goes on from what is done")

    def _wait(self) -> None:
        """Return when the lease is ours."""
        told = ""
        while True:
            time.sleep(self.pause_seconds)
            first = self._first()
            if first.owner == self._claim.owner:
                self._claim = replace(
                    self._claim, term=1 + max(claim.term for claim, _ in self._seen.values())
                )
                self._write(self._claim)
                return
            if first.owner != told:
                host = first.process.rsplit(":", 2)[0]
                began = time.strftime("%Y-%m-%d %H:%M", time.localtime(first.since))
                self.say(f"waiting for another command that runs this study, on {host} since {began}")
                told = first.owner
            self._again()

    def _first(self) -> Claim:
        """Return the claim that has the lease, or is next."""
        try:
            claims = self._read()
        except StoreAwayError:
            self._seen.clear()  # nobody could renew what is read next
            raise
        now = time.monotonic()
        for claim in claims:
            if claim.owner not in self._seen or self._seen[claim.owner][0] != claim:
                self._seen[claim.owner] = (claim, now)
        alive = [claim for claim in claims if not self._is_stale(claim, now)]
        return min([*alive, self._claim], key=lambda claim: claim.rank)

    def _is_stale(self, claim: Claim, now: float) -> bool:
        return has_ended(claim.process) or now - self._seen[claim.owner][1] > self.stale_seconds

    def _renew(self) -> None:
        """Renew the claim until it is over; a store that is away is away for all."""
        while not self._lost and not self._over.wait(self.renewal_seconds):
            with suppress(StoreAwayError):
                self._renew_once()

    def _renew_once(self) -> None:
        self._again()
        first = self._first()
        if first.owner != self._claim.owner:
            self._lost = first.process

    def _again(self) -> None:
        self._claim = replace(self._claim, renewal=self._claim.renewal + 1)
        self._write(self._claim)

    def _name(self, owner: str) -> str:
        return f"{PREFIX}{owner}"

    def _write(self, claim: Claim) -> None:
        value = json.dumps(asdict(claim))
        self.connection.client.set_experiment_tag(
            self.connection.experiment_id, self._name(claim.owner), value
        )

    def _read(self) -> list[Claim]:
        tags = self.connection.client.get_experiment(self.connection.experiment_id).tags
        claims = []
        for name, value in tags.items():
            if name.startswith(PREFIX):
                with suppress(ValueError, TypeError):  # somebody else's tag of that name
                    claims.append(Claim(**json.loads(value)))
        return claims

    def _withdraw(self) -> None:
        """Take the claim back; what is left of a store that is away goes stale."""
        with suppress(StoreAwayError, RefusedError):
            client, where = self.connection.client, self.connection.experiment_id
            stale = [claim.owner for claim in self._read() if has_ended(claim.process)]
            for owner in {self._claim.owner, *stale}:
                client.delete_experiment_tag(where, self._name(owner))
