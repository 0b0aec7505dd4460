"""The runs of one experiment: a reader, a writer, and between them and a store that may go away an outbox.

Runs nest: study > strategy (an arm) > trials and seeds. Every run carries the tags `study`, `strategy`,
`seed` and `purpose`, so that a person can filter and group by them. Final values are metrics named
`val/accuracy`; what was measured at each evaluation is named `curve/val/accuracy`, because MLflow shows only
the last value of a name.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from bench.core.errors import StoreAwayError
from bench.core.hashing import canonical_json, digest
from bench.core.runs import Arm, Purpose, RunSpec
from bench.system import locations
from bench.system.processes import has_ended, this_process
from bench.tracking.connection import Connection
from bench.tracking.frames import FoundRun
from bench.tracking.live_run import NOTHING, LiveRun
from bench.tracking.outbox import Outbox
from bench.tracking.outbox_writer import OutboxWriter
from bench.tracking.reader import GENERATION, Reader
from bench.tracking.writer import Writer


class RunStore:
    """The runs of one experiment.

    What a study asks while it runs (`find`, `has_ended`, `trials`) takes in what waits in the outbox, and of
    a store that is away answers with what was known before; `reader` answers from the store alone.

    Args:
        connection: to the experiment.
        outbox: where writes wait while the store is away; None: they fail.
    """

    def __init__(self, connection: Connection, outbox: Outbox | None = None) -> None:
        self.connection = connection
        self.reader = Reader(connection)
        self._outbox = outbox
        self._late = OutboxWriter(connection, outbox) if outbox else None
        self.writer: Writer | OutboxWriter = self._late or Writer(connection)
        self._known: dict[str, FoundRun] = {}

    def open_study(
        self, name: str, key: str, tags: Mapping[str, Any], params: Mapping[str, Any], more: str = ""
    ) -> str:
        """Return the id of the study's run, RUNNING: the one with this key if there is one, else a new one.

        `more` is added to the name that people see.
        """
        own = {"study": name, "purpose": "study", "bench.key": key}
        return self.writer.open_run(f"{name}{more}", {**tags, **own}, params)

    def open_arm(
        self, study_run_id: str, arm: Arm, tags: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        """Return the id of the arm's run, RUNNING, below the study's run.

        An arm is done once: one that was opened below another run of the study (which had fewer seeds, say)
        moves below this one, with all that is below it.
        """
        own = {"study": arm.study, "strategy": arm.strategy, "purpose": "arm", "bench.key": arm.key}
        return self.writer.open_run(arm.strategy, {**tags, **own, "mlflow.parentRunId": study_run_id}, params)

    def start(
        self,
        spec: RunSpec,
        parent_run_id: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
    ) -> LiveRun:
        """Begin a run below an arm's run.

        Args:
            spec: what is run; its hyperparameters are logged beside `params`.
            parent_run_id: of the arm.
            name: what people see, such as `seed 3`.
            params: anything else worth a column.
            tags: `size` and `similarity` (of the scenario) and `trial` (its number: a trial must have it)
                come back in the frames.
        """
        own = {
            "study": spec.arm.study,
            "strategy": spec.arm.strategy,
            "seed": spec.seed,
            "purpose": spec.purpose.value,
            "bench.run_key": spec.key,
            "bench.arm_key": spec.arm.key,
            "bench.params": canonical_json(dict(spec.params)),
            "mlflow.parentRunId": parent_run_id,
        }
        everything = {**tags, **own}
        return LiveRun(
            self.writer, lambda: self.writer.create_run(name, everything), {**params, **spec.params}
        )

    def fail_leftovers(self, study_run_id: str, *, at_the_end: bool = False, alone: bool = False) -> int:
        """End as KILLED what a killed process left RUNNING in this study; return how many.

        A process that is killed can't end its runs. Only those whose process ran on this host are judged, or
        all, if this command is `alone`: no other does runs of this study before this is called, or after.
        At the end of all runs those of this process are left over too: a server that hung may have begun one
        more than once. With an outbox, a store that is away is left alone.
        """
        if not self._late:
            return self._fail_leftovers(study_run_id, at_the_end, alone)
        with suppress(StoreAwayError):
            return self._fail_leftovers(self._late.resolve(study_run_id), at_the_end, alone)
        return 0

    def _fail_leftovers(self, study_run_id: str, at_the_end: bool, alone: bool) -> int:
        search = self.connection.search
        arms = search(f"tags.\"mlflow.parentRunId\" = '{study_run_id}'")
        family = {study_run_id, *(run.info.run_id for run in arms)}
        left = [
            run.info.run_id
            for run in search("attributes.status = 'RUNNING'")
            if {run.info.run_id, run.data.tags.get("mlflow.parentRunId")} & family
            and _is_left(run.data.tags, at_the_end, alone)
        ]
        for run_id in left:
            self.writer.end_leftover(run_id)
        return len(left)

    def find(self, keys: Iterable[str], tags: Mapping[str, str] = NOTHING) -> dict[str, FoundRun]:
        """Return the final runs that are DONE (see `Reader.find`); with an outbox also those found before."""
        wanted = list(keys)
        if not self._late:
            return self.reader.find(wanted, tags)
        with suppress(StoreAwayError):
            self._known |= self.reader.find(wanted, tags)
        return {key: self._known[key] for key in wanted if key in self._known}

    def has_ended(self, key: str, since: float, tags: Mapping[str, str] = NOTHING) -> bool:
        """Say whether a final run has ended (see `Reader.has_ended`), in the store or in the outbox."""
        if not self._outbox:
            return self.reader.has_ended(key, since, tags)
        if key in self._outbox.ended_keys():
            return True
        with suppress(StoreAwayError):
            return self.reader.has_ended(key, since, tags)
        return key in self._known

    def forget_arm(self, arm_key: str, generation: str) -> None:
        """Mark an arm: of its runs those count from now on that have this mark."""
        for run_id in self.reader.arm_tags(arm_key):
            self.writer.write(run_id, [], {}, {GENERATION: generation})

    def trials(self, arm_key: str, known: Collection[str], seed: int | None = None) -> list[FoundRun]:
        """Return an arm's trials that came to an end by themselves, newest first; none if the store is away.

        Args:
            arm_key: the arm's.
            known: the run keys of those that the caller knows.
            seed: theirs; None: of all seeds.

        Raises:
            StoreAwayError: if others wait to be delivered and can't be: they must not be done again.
        """
        having = {"bench.arm_key": arm_key, "purpose": Purpose.TRIAL.value}
        having |= {} if seed is None else {"seed": str(seed)}
        if self._outbox and self._outbox.ended_keys(having) - set(known):
            self.settle()
        try:
            return self.reader.runs_of_arm(arm_key, Purpose.TRIAL, seed)
        except StoreAwayError:
            if self._outbox is None:
                raise
            return []

    def settle(self) -> None:
        """Deliver what waits.

        Raises:
            StoreAwayError: if the store is still away.
        """
        if self._late:
            self._late.settle()


def open_store(uri: str | None, experiment: str, *, create: bool = False, to_read: bool = False) -> RunStore:
    """Return the store of an experiment; writes fail while it is away. See `Connection` for what it raises.

    Args:
        uri: see `store_uri.resolve_uri`.
        experiment: its name.
        create: whether to create store and experiment if they are missing.
        to_read: whether nothing is written; then a SQLite store that can only be read is enough.
    """
    return RunStore(Connection(uri, experiment, create=create, to_read=to_read))


def open_study_store(uri: str | None, experiment: str, experiment_id: str = "") -> RunStore:
    """Return the store of an experiment for a study that runs: created if missing, its writes can wait.

    They wait in `outbox/` of BENCH_HOME; whatever is begun next with the same BENCH_HOME and store delivers
    them first. See `Connection` for the arguments and what it raises.
    """
    connection = Connection(uri, experiment, experiment_id=experiment_id)
    home = locations.home()
    name = digest([connection.uri.replace(f"{home}/", "BENCH_HOME/"), experiment])[:16]  # a home may move
    return RunStore(connection, Outbox(home / "outbox" / name))


def _is_left(tags: Mapping[str, str], at_the_end: bool, alone: bool) -> bool:
    process, trains = tags.get("bench.process", "::"), tags.get("purpose") in {"trial", "final"}
    ours = process == this_process() and at_the_end
    return has_ended(process) or (trains and (ours or alone))
