"""Read the runs of an experiment back, one by one or as tidy tables; nothing is written, or needs mlflow."""

import json
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.runs import (
    Purpose,
    Scores,
    Status,
)
from bench.system.csv_tables import from_csv
from bench.system.processes import has_ended
from bench.tracking import frames, store_uri
from bench.tracking.connection import PAGE, Connection
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.live_run import CURVE, FILES, NOTHING
from bench.tracking.score_files import SCORES, read_scores

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

RECORDED = "bench.record"  # the tag that says that what a study's report needs is among its files
ENDED = {"FINISHED", "FAILED"}  # by themselves; a run that was interrupted is KILLED
PARENT = "mlflow.parentRunId"  # the tag that says below which run one is
BASELINE = "baseline"  # the tag of the runs of baselines, by which they are told from those of strategies
GENERATION = "bench.generation"  # the tag of an arm, and of its runs, since it was forgotten with --fresh
EXAMPLES = "examples/"  # where a run keeps pictures of some test images
READERS = 8  # files read from a server at a time


class Reader:
    """The runs of one experiment, as they are stored; each method raises InputError if they can't be read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, keys: Iterable[str], tags: Mapping[str, str] = NOTHING) -> dict[str, FoundRun]:
        """Return the final runs that are DONE, by key; of several with one key the newest.

        Args:
            keys: of the runs wanted.
            tags: which they all have, such as the key of their arm: only such runs are read.
        """
        having = _having({"bench.status": Status.DONE.value, **tags})
        done = self._ended(Purpose.FINAL, f" and {having}")
        return frames.by_key(done, list(keys))

    def studies(self) -> list[FoundStudy]:
        """Return the studies' runs: those that go on, then the others, the one that ended last first.

        One that seems to go on and whose process is known to have ended comes last.
        """
        found = [
            FoundStudy(
                run.info.run_id, _trusted(run), run.info.artifact_uri, run.info.end_time, run.info.status
            )
            for run in self._connection.search("tags.purpose = 'study'")
        ]
        return sorted(found, key=lambda run: (_has_crashed(run), -(run.ended or math.inf)))

    def run(self, run_id: str) -> FoundRun:
        """Return a final run that is DONE.

        Raises:
            InputError: if it is none, or a file of it is gone.
        """
        run = self._connection.client.get_run(run_id)
        tags = run.data.tags
        is_final = tags.get("purpose") == Purpose.FINAL.value and BASELINE not in tags
        if not is_final or tags.get("bench.status") != Status.DONE.value or not _is_whole(run):
            what = f"the run {run_id} is no final run that is done"
            raise InputError(what, store_uri.shown(self._connection.uri), "name one of a strategy's seeds")
        return _found(run)

    def study_of(self, run_id: str) -> str:
        """Return the id of the study's run that a final run is below; empty if it is below none."""
        arm = self._connection.client.get_run(run_id).data.tags.get(PARENT)
        return str(self._connection.client.get_run(arm).data.tags.get(PARENT, "")) if arm else ""

    def arms(self, study_run_id: str) -> dict[str, str]:
        """Return strategy to the id of its arm's run, of those below a study's run."""
        found = self._connection.search(
            f"tags.purpose = 'arm' and tags.\"mlflow.parentRunId\" = '{study_run_id}'"
        )
        return {run.data.tags["strategy"]: run.info.run_id for run in found}

    def runs_of_arm(self, arm_key: str, purpose: Purpose, seed: int | None = None) -> list[FoundRun]:
        """Return an arm's runs that came to an end by themselves, newest first; of one seed, or of all."""
        of_seed = "" if seed is None else f" and tags.seed = '{seed}'"
        return self._ended(purpose, f" and tags.\"bench.arm_key\" = '{arm_key}'{of_seed}")

    def has_ended(self, key: str, since: float, tags: Mapping[str, str] = NOTHING) -> bool:
        """Say whether the final run of a key is DONE, or FAILED after a time in seconds since 1970."""
        own = {"bench.run_key": key, **tags}
        runs = self._connection.search(_having(own | {"purpose": Purpose.FINAL.value}))
        states = [(run.data.tags.get("bench.status"), run.info) for run in runs if _is_whole(run)]
        return any(
            state == Status.DONE.value or (state == Status.FAILED.value and info.start_time >= 1000 * since)
            for state, info in states
            if info.status in ENDED
        )

    def generation(self, arm_key: str) -> str:
        """Return the mark of an arm's runs since they were last forgotten; empty if they never were."""
        marks = [tags.get(GENERATION, "") for tags in self.arm_tags(arm_key).values()]
        return marks[0] if marks else ""

    def arm_tags(self, arm_key: str) -> dict[str, dict[str, str]]:
        """Return the id and the tags of an arm's own run, if there is one; the newest first."""
        found = self._connection.search(_having({"bench.key": arm_key, "purpose": "arm"}))
        return {run.info.run_id: run.data.tags for run in found}

    def curve_values(self, runs: Sequence[FoundRun], metric: str) -> dict[str, list[tuple[int, float]]]:
        """Return a metric such as `val/accuracy` by run id: (step, value), in the order of steps."""
        name, values = CURVE + metric, {run.run_id: dict[int, float]() for run in runs}
        having = [run.run_id for run in runs if name in run.curve_metrics]
        for run_id, step, value in self._histories(having, name):
            values[run_id][step] = value
        return {run_id: sorted(steps.items()) for run_id, steps in values.items()}

    def runs_frame(self, keys: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each final run, DONE or FAILED, in the order of keys: see `frames.table`."""
        return frames.table(frames.by_key(self._ended(Purpose.FINAL), list(dict.fromkeys(keys))).values())

    def trials_frame(self, arm_keys: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each tuning trial, by arm, seed and number: the same columns and `trial`."""
        by_seed = [frames.trials_by_seed(self.runs_of_arm(key, Purpose.TRIAL)) for key in arm_keys]
        return frames.table([run for arm in by_seed for own in arm.values() for run in own], "trial")

    def curves_frame(self, runs: Sequence[FoundRun]) -> "pd.DataFrame":
        """Return a row for each run and evaluation: strategy, seed, step, `train_loss`, ..."""
        who = {run.run_id: _who(run) for run in runs}
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for name in sorted({name for run in runs for name in run.curve_metrics}):
            for run_id, step, value in self._histories(
                [r.run_id for r in runs if name in r.curve_metrics], name
            ):
                row = rows.setdefault((run_id, step), {**who[run_id], "step": step})
                row[frames.column(name.removeprefix(CURVE))] = value
        order = {run_id: place for place, run_id in enumerate(who)}
        return frames.curves([rows[key] for key in sorted(rows, key=lambda key: (order[key[0]], key[1]))])

    def _histories(self, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, int, float]]:
        """Yield (run, step, value) of a metric; a database gives those of many runs at once."""
        with self._connection.client.explained():
            bulk = getattr(self._connection.client.database, "get_metric_history_bulk", None)
            for start in range(0, len(run_ids), PAGE):
                some = run_ids[start : start + PAGE]
                if bulk:
                    yield from ((p.run_id, p.step, p.value) for p in bulk(some, name, None))
                    continue
                with ThreadPoolExecutor(READERS) as pool:
                    read = partial(self._connection.client.get_metric_history, key=name)
                    for run_id, points in zip(some, pool.map(read, some), strict=True):
                        yield from ((run_id, point.step, point.value) for point in points)

    def predictions_frame(self, runs: Sequence[FoundRun], below: str = "") -> "pd.DataFrame":
        """Return a row for each run and test image, or image and class: strategy, seed, then `PREDICTIONS`.

        Args:
            runs: final ones.
            below: what stands before the names of their files: of a further test set.

        Raises:
            InputError: if a run's `predictions.csv` is gone.
        """
        import pandas as pd

        columns = ["strategy", "seed", *frames.PREDICTIONS]
        parts = [
            from_csv(content, ("image", "target", "prediction", "group")).assign(**_who(run))
            for run, content in zip(runs, self.read_all(runs, f"{below}predictions.csv"), strict=True)
        ]
        kept = [part[[name for name in columns if name in part]] for part in parts]
        return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns[:5])

    def scores(self, runs: Sequence[FoundRun], below: str = "") -> dict[tuple[str, int], Scores]:
        """Return what runs rank test images by, by (strategy, seed).

        Raises:
            InputError: if a run doesn't keep it.
        """
        contents = self.read_all(runs, f"{below}{SCORES}")
        who = [(run.tags["strategy"], int(run.tags["seed"])) for run in runs]
        return {key: read_scores(content) for key, content in zip(who, contents, strict=True)}

    def examples(self, runs: Sequence[FoundRun]) -> dict[tuple[str, int, str], bytes]:
        """Return the pictures that runs of segmentation keep, by (strategy, seed, name of the file)."""
        kept = {run.run_id: json.loads(run.tags.get(FILES, "{}")) for run in runs}
        names = sorted({n for files in kept.values() for n in files if n.startswith(EXAMPLES)})
        found: dict[tuple[str, int, str], bytes] = {}
        for name in names:
            having = [run for run in runs if name in kept[run.run_id]]
            for run, content in zip(having, self.read_all(having, name), strict=True):
                who = _who(run)
                found[who["strategy"], who["seed"], name] = content
        return found

    def read_all(self, runs: Sequence[FoundRun | FoundStudy], name: str) -> Iterator[bytes]:
        """Yield a file of each run. Those on this machine are read where they are, others several at a time.

        Raises:
            InputError: if a run doesn't have it.
        """
        with ThreadPoolExecutor(READERS) as pool, tempfile.TemporaryDirectory() as folder:

            def read(run: FoundRun | FoundStudy) -> bytes:
                place = store_uri.local_path(run.artifacts)
                if place is not None:
                    with self._connection.client.explained():
                        return (place / name).read_bytes()
                own = Path(folder) / run.run_id
                own.mkdir()
                return Path(
                    self._connection.client.download_artifacts(run.run_id, name, str(own))
                ).read_bytes()

            yield from pool.map(read, runs)

    def _ended(self, purpose: Purpose, more: str = "") -> list[FoundRun]:
        """Return the runs that came to an end by themselves, newest first."""
        runs = self._connection.search(f"tags.purpose = '{purpose.value}'{more}")
        ended = [run for run in runs if "bench.status" in run.data.tags and run.info.status in ENDED]
        return [_found(run) for run in ended if _is_whole(run)]


def _having(tags: Mapping[str, str]) -> str:
    """Return the condition for runs with these tags; the rarest first: a database looks them up in order."""
    return " and ".join(f"tags.\"{name}\" = '{value}'" for name, value in tags.items())


def _is_whole(run: Any) -> bool:
    """Say whether the files that a run says it has are there, as far as they are on this machine's disk.

    Without them it is not done, whatever it says: a disk may have lost them, or a person.
    """
    place = store_uri.local_path(run.info.artifact_uri)
    if place is None or FILES not in run.data.tags:
        return True
    for name, size in json.loads(run.data.tags[FILES]).items():
        if _bytes(place / name) != size:
            what = "is gone" if _bytes(place / name) is None else "is damaged"
            log.warning(
                "bench: the run %s does not count: its file %s %s", run.info.run_id, place / name, what
            )
            return False
    return True


def _bytes(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _trusted(run: Any) -> dict[str, str]:
    """Return a study's tags; where its files are damaged, without the one that says that they are there."""
    tags = dict(run.data.tags)
    if not _is_whole(run):
        tags.pop(RECORDED, None)
    return tags


def _has_crashed(run: FoundStudy) -> bool:
    return run.status == "RUNNING" and has_ended(run.tags.get("bench.process", "::"))


def _who(run: FoundRun) -> dict[str, Any]:
    return {"strategy": run.tags["strategy"], "seed": int(run.tags["seed"])}


def _found(run: Any) -> FoundRun:
    tags = run.data.tags
    return FoundRun(
        run_id=run.info.run_id,
        key=tags["bench.run_key"],
        status=Status(tags["bench.status"]),
        metrics={n: v for n, v in run.data.metrics.items() if not n.startswith(CURVE)},
        params=json.loads(tags["bench.params"]),
        tags=tags,
        artifacts=run.info.artifact_uri,
        curve_metrics=frozenset(n for n in run.data.metrics if n.startswith(CURVE)),
        ended=run.info.end_time or 0,
    )
