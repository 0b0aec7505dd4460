"""What is done and what came of it, kept in MLflow. The only file that imports `mlflow`, and only when used.

Runs nest: study > strategy (an arm) > trials and seeds. Every run carries the tags `study`, `strategy`,
`seed` and `purpose`, so that a person can filter and group by them. Final values are metrics named
`val/accuracy`; what was measured at each epoch is named `epoch/val/accuracy`, because MLflow shows only the
last value of a name.
"""

import getpass
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bench.environment import git_commit, has_ended, this_process
from bench.errors import InputError
from bench.spec import Arm, Purpose, RunSpec, Status, canonical_json
from bench.tracking import address, frames
from bench.tracking.frames import FoundRun
from bench.tracking.live import EPOCH, End, LiveRun, Point

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # With MLflow's own settings each call to a server that is gone blocks for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
PAGE = 1000  # runs fetched at a time
METRICS, OTHERS = 800, 100  # in a batch; MLflow takes 1,000 entries, 100 params, 100 tags
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000  # characters
SAMPLE_SECONDS = 10.0  # between two samples of system metrics


class RunStore:
    """The runs of one experiment.

    Args:
        uri: see `address.resolve_uri`.
        experiment: its name; it is created if it is missing. Several processes may do so at once.

    Raises:
        InputError: here and in every method, if the store can't be reached or used; one line that names it.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self.uri = address.resolve_uri(uri)
        with address.one_at_a_time(self.uri):
            address.prepare(self.uri)
            self._client: Any = _Explained(self.uri)
            self.experiment_id = self._experiment(experiment)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            root = address.artifact_folder(self.uri)
            location = (root / re.sub(r"[^\w.\-]", "_", name)).as_uri() if root else None
            try:
                return str(self._client.create_experiment(name, location))
            except InputError:
                found = self._client.get_experiment_by_name(name)  # another process may have been faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            remedy = f"bring it back: mlflow experiments restore -x {found.experiment_id}"
            raise InputError(f"the experiment '{name}' was deleted", address.shown(self.uri), remedy)
        return str(found.experiment_id)

    @property
    def place(self) -> str:
        """Where the runs can be seen: the experiment's page, or for a store without pages its address.

        `workflowType` keeps MLflow 3 from opening its pages for language models.
        """
        shown = address.shown(self.uri)
        runs = f"#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        return f"{shown}/{runs}" if address.is_server(self.uri) else f"{shown} (browse: bench ui)"

    def open_study(self, name: str, key: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        """Return the id of the study's run, RUNNING: the one with this key if there is one, else a new one.

        Params that it has already are left as they are: MLflow refuses to change them.
        """
        return self._open(name, {**tags, "study": name, "purpose": "study", "bench.key": key}, params)

    def open_arm(
        self, study_run_id: str, arm: Arm, tags: Mapping[str, Any], params: Mapping[str, Any], plan: str
    ) -> str:
        """Return the id of the arm's run, RUNNING, below the study's run; `plan` is kept as `plan.txt`.

        An arm is done once: one that was opened below another run of the study (which had fewer seeds, say)
        moves below this one, with all that is below it.
        """
        own = {"study": arm.study, "strategy": arm.strategy, "purpose": "arm", "bench.key": arm.key}
        run_id = self._open(arm.strategy, {**tags, **own, "mlflow.parentRunId": study_run_id}, params)
        self.log_text(run_id, plan, "plan.txt")
        return run_id

    def _open(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        same = f"tags.\"bench.key\" = '{tags['bench.key']}' and tags.purpose = '{tags['purpose']}'"
        found = self._client.search_runs([self.experiment_id], same, max_results=1)
        if not found:
            run_id = self._create(name, tags)
            self.write(run_id, [], params, {})
            return run_id
        run_id = str(found[0].info.run_id)
        self._client.update_run(run_id, status="RUNNING")
        new = {k: v for k, v in params.items() if _name(k) not in found[0].data.params}
        self.write(run_id, [], new, {**tags, "bench.process": this_process()})
        return run_id

    def _create(self, name: str, tags: Mapping[str, Any]) -> str:
        everything = _texts({**_origin(), **tags, "bench.process": this_process()}, LONGEST_TAG)
        return str(self._client.create_run(self.experiment_id, run_name=name, tags=everything).info.run_id)

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
        return LiveRun(self, self._create(name, {**tags, **own}), {**params, **spec.params})

    def close(self, run_id: str, status: End) -> None:
        """End a study's or an arm's run; a live run ends itself."""
        self._client.set_terminated(run_id, status)

    def write(
        self, run_id: str, points: list[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> None:
        """Write values, params and tags in as few batches as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        values = [Metric(_name(p.name), p.value, p.milliseconds, p.step) for p in points]
        settings = [Param(*item) for item in _texts(params, LONGEST_PARAM).items()]
        labels = [RunTag(*item) for item in _texts(tags, LONGEST_TAG).items()]
        while values or settings or labels:
            self._client.log_batch(run_id, values[:METRICS], settings[:OTHERS], labels[:OTHERS])
            values, settings, labels = values[METRICS:], settings[OTHERS:], labels[OTHERS:]

    def upload(self, run_id: str, name: str, file: Path) -> None:
        """Keep a file as an artifact under the name given, whatever it is called on disk."""
        target = PurePosixPath(name)
        with tempfile.TemporaryDirectory() as temporary:
            link = Path(temporary) / target.name
            link.symlink_to(file.resolve())
            self._client.log_artifact(run_id, str(link), str(target.parent) if target.parent.name else None)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as an artifact."""
        self._client.log_text(run_id, text, name)

    def log_dataset(self, run_id: str, name: str, sha256: str, origin: str) -> None:
        """Say which data a run is about; MLflow keeps 36 characters of the digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name, sha256[:36], "local", canonical_json({"origin": origin}))
        self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "transfer")])])

    def find(self, keys: Iterable[str]) -> dict[str, FoundRun]:
        """Return the final runs that are DONE, by key; of several with one key the newest."""
        done = self._ended(Purpose.FINAL, " and tags.\"bench.status\" = 'done'")
        return frames.by_key(done, list(keys))

    def runs_frame(self, keys: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each final run, DONE or FAILED, in the order of keys: see `frames.table`."""
        return frames.table(frames.by_key(self._ended(Purpose.FINAL), list(dict.fromkeys(keys))).values())

    def trials_frame(self, arm_keys: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each tuning trial, by arm and number: the same columns and `trial`."""
        return frames.table(frames.by_trial(self._ended(Purpose.TRIAL), arm_keys), "trial")

    def curves_frame(self, run_ids: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each run and epoch: strategy, seed, epoch, `train_loss`, `val_accuracy`, ..."""
        rows: list[dict[str, Any]] = []
        for run in map(self._client.get_run, run_ids):
            epochs: dict[int, dict[str, Any]] = {}
            for name in (n for n in run.data.metrics if n.startswith(EPOCH)):
                for point in self._client.get_metric_history(run.info.run_id, name):
                    row = epochs.setdefault(point.step, {**_who(run), "epoch": point.step})
                    row[frames.column(name.removeprefix(EPOCH))] = point.value
            rows += [epochs[epoch] for epoch in sorted(epochs)]
        return frames.curves(rows)

    def predictions_frame(self, run_ids: Iterable[str]) -> "pd.DataFrame":
        """Return a row for each run and test image: strategy, seed, image, target, prediction.

        Raises:
            InputError: if a run's `predictions.csv` is gone.
        """
        import pandas as pd

        columns = ["strategy", "seed", "image", "target", "prediction"]
        parts = []
        with tempfile.TemporaryDirectory() as folder:
            for run in map(self._client.get_run, run_ids):
                file = self._client.download_artifacts(run.info.run_id, "predictions.csv", folder)
                parts.append(pd.read_csv(file, dtype={"image": str}).assign(**_who(run))[columns])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def environment(self, run_id: str) -> dict[str, Any]:
        """Return what a run was made with: versions, device, precision, threads."""
        return dict(json.loads(self._client.get_run(run_id).data.tags.get("bench.environment", "{}")))

    def fail_leftovers(self, study_run_id: str) -> int:
        """End as KILLED what a killed process left RUNNING in this study; return how many.

        A process that is killed can't end its runs. Only those whose process ran on this host are judged.
        """
        arms = self._search(f"tags.\"mlflow.parentRunId\" = '{study_run_id}'")
        family = {study_run_id, *(run.info.run_id for run in arms)}
        left = [
            run.info.run_id
            for run in self._search("attributes.status = 'RUNNING'")
            if {run.info.run_id, run.data.tags.get("mlflow.parentRunId")} & family
            and has_ended(run.data.tags.get("bench.process", "::"))
        ]
        for run_id in left:
            self.close(run_id, "KILLED")
        return len(left)

    def _ended(self, purpose: Purpose, more: str = "") -> list[FoundRun]:
        """Return the runs that came to an end by themselves, newest first."""
        runs = self._search(f"tags.purpose = '{purpose.value}'{more}")
        return [
            _found(run)
            for run in runs
            if "bench.status" in run.data.tags and run.info.status in {"FINISHED", "FAILED"}
        ]

    def _search(self, condition: str) -> list[Any]:
        runs: list[Any] = []
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], condition, max_results=PAGE, page_token=token
            )
            runs += page
            if not (token := page.token):
                return runs


class _Explained:
    """An MLflow client each of whose failures is one line that names the store."""

    def __init__(self, uri: str) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._uri = uri
        with _explained(uri):
            self._client = MlflowClient(uri, uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def explained(*args: Any, **options: Any) -> Any:
            with _explained(self._uri):
                return call(*args, **options)

        return explained


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow or the network raise into one line; our own wrong arguments stay as they are."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
            raise
        remedy = "is the server running?" if address.is_server(uri) else ""
        raise InputError(
            f"the run store failed: {address.first_line(error)}", address.shown(uri), remedy
        ) from error


@contextmanager
def system_metrics(store: RunStore, run_id: str) -> Iterator[None]:
    """Sample processor, memory, disk, network and GPU into a run every ten seconds, if they can be read.

    Nothing that goes wrong here may touch the study: it is measured, not needed.
    """
    monitor: Any = None
    with suppress(Exception):  # psutil missing, no NVML, the store gone
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        sampler: Any = SystemMetricsMonitor
        monitor = sampler(run_id, SAMPLE_SECONDS, resume_logging=True, tracking_uri=store.uri)
        monitor.start()
    try:
        yield
    finally:
        with suppress(Exception):
            _stop(monitor)


def _stop(monitor: Any) -> None:
    """Stop sampling and write the last sample, which a study shorter than the interval would lose."""
    if monitor is None:
        return
    monitor.finish()
    monitor.collect_metrics()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()


def _name(text: str) -> str:
    """Return a name that MLflow accepts: letters, digits, `_ - . : ` and blanks, in a plain relative path."""
    parts = re.sub(r"[^\w\-. /:]", "_", text)[:LONGEST_NAME].split("/")
    return "/".join(part for part in parts if part not in {"", ".", ".."}) or "_"


def _texts(values: Mapping[str, Any], longest: int) -> dict[str, str]:
    return {_name(name): str(value)[:longest] for name, value in values.items()}


@cache
def _origin() -> dict[str, str]:
    """Return the tags that MLflow's fluent interface sets and its client does not."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    tags = {"mlflow.user": user, "mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
    commit = git_commit(Path.cwd()).removesuffix("-dirty")
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _who(run: Any) -> dict[str, Any]:
    return {"strategy": run.data.tags["strategy"], "seed": int(run.data.tags["seed"])}


def _found(run: Any) -> FoundRun:
    tags = run.data.tags
    return FoundRun(
        run_id=run.info.run_id,
        key=tags["bench.run_key"],
        status=Status(tags["bench.status"]),
        metrics={n: v for n, v in run.data.metrics.items() if not n.startswith(EPOCH)},
        params=json.loads(tags["bench.params"]),
        tags=tags,
    )
