"""What is done and what came of it, kept in MLflow. The only file that imports `mlflow`, and only when used.

It writes; `reading.py` reads.

Runs nest: study > strategy (an arm) > trials and seeds. Every run carries the tags `study`, `strategy`,
`seed` and `purpose`, so that a person can filter and group by them. Final values are metrics named
`val/accuracy`; what was measured at each epoch is named `epoch/val/accuracy`, because MLflow shows only the
last value of a name.
"""

import getpass
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from bench.core.errors import InputError, NotStoredError
from bench.core.hashing import canonical_json
from bench.core.runs import Arm, RunSpec
from bench.system.processes import has_ended, this_process
from bench.system.provenance import git_commit
from bench.tracking import store_uri
from bench.tracking.client import (
    SETTINGS,
    ExplainedClient,
    explained_failures,
    make_database,
)
from bench.tracking.frames import FoundRun
from bench.tracking.live_run import End, LiveRun, Point
from bench.tracking.reader import StoredRuns

METRICS, OTHERS = 800, 100  # in a batch; MLflow takes 1,000 entries, 100 params, 100 tags
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000  # characters
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description, in Markdown
LOCAL_UI = "http://127.0.0.1:5000"  # where `bench ui` is, if no other port is asked for


@dataclass(frozen=True, eq=False)
class Exported:
    """A torch module that is to be registered.

    Args:
        module: takes one array and gives one, float32 (N, K).
        example: of its input; all but its last dimension may differ.
        metadata: JSON types; kept in the model's `MLmodel` file.
    """

    module: Any
    example: Any
    metadata: Mapping[str, Any]


class RunStore(StoredRuns):
    """The runs of one experiment.

    Args:
        uri: see `store_uri.resolve_uri`.
        experiment: its name. Several processes may create it at once.
        create: whether to create it if it is missing.
        experiment_id: if another process has found it; then nothing is asked of the store, which may be away.

    Raises:
        NotStoredError: if the store or the experiment is missing and is not to be created.
        InputError: here and in every method, if the store can't be reached or used; one line that names it.
    """

    def __init__(
        self, uri: str | None, experiment: str, *, create: bool = True, experiment_id: str = ""
    ) -> None:
        for name, value in SETTINGS.items():  # before mlflow is imported anywhere
            os.environ.setdefault(name, value)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what fails is said once
        self.uri = store_uri.resolve_uri(uri)
        self._client: Any = ExplainedClient(self.uri)
        self.experiment_id = experiment_id
        if experiment_id:
            return
        file = store_uri.sqlite_file(self.uri)
        if not create and file and not file.exists():
            raise NotStoredError("there is no run store", store_uri.shown(self.uri), "run `bench run` first")
        with store_uri.one_at_a_time(self.uri):
            make_database(file)
            self.experiment_id = self._experiment(experiment, create=create)

    def _experiment(self, name: str, *, create: bool) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None and not create:
            where = store_uri.shown(self.uri)
            raise NotStoredError(f"there is no experiment '{name}'", where, "run `bench run` first")
        if found is None:
            root = store_uri.artifact_folder(self.uri)
            location = (root / re.sub(r"[^\w.\-]", "_", name)).as_uri() if root else None
            try:
                return str(self._client.create_experiment(name, location))
            except InputError:
                found = self._client.get_experiment_by_name(name)  # another process may have been faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            remedy = f"bring it back: mlflow experiments restore -x {found.experiment_id}"
            raise InputError(f"the experiment '{name}' was deleted", store_uri.shown(self.uri), remedy)
        return str(found.experiment_id)

    @property
    def place(self) -> str:
        """Where the runs can be seen: the experiment's page, or for a store without pages its address.

        `workflowType` keeps MLflow 3 from opening its pages for language models.
        """
        shown = store_uri.shown(self.uri)
        runs = f"#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"
        return f"{shown}/{runs}" if store_uri.is_server(self.uri) else f"{shown} (browse: bench ui)"

    @property
    def run_pages(self) -> str:
        """What stands before a run's id in the address of its page; of a local store, where `bench ui` is."""
        server = store_uri.shown(self.uri) if store_uri.is_server(self.uri) else LOCAL_UI
        return f"{server}/#/experiments/{self.experiment_id}/runs/"

    def open_study(
        self, name: str, key: str, tags: Mapping[str, Any], params: Mapping[str, Any], more: str = ""
    ) -> str:
        """Return the id of the study's run, RUNNING: the one with this key if there is one, else a new one.

        Params that it has already are left as they are: MLflow refuses to change them. `more` is added to the
        name that people see.
        """
        return self._open(
            f"{name}{more}", {**tags, "study": name, "purpose": "study", "bench.key": key}, params
        )

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

    def _create(self, name: str, tags: Mapping[str, Any], milliseconds: int | None = None) -> str:
        everything = _texts({**_origin(), **tags, "bench.process": this_process()}, LONGEST_TAG)
        return str(self._client.create_run(self.experiment_id, milliseconds, everything, name).info.run_id)

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

    def close(self, run_id: str, status: End, milliseconds: int | None = None) -> None:
        """End a study's or an arm's run; a live run ends itself.

        Args:
            run_id: the run's id.
            status: how it ended.
            milliseconds: since 1970, when it ended; None: now.
        """
        self._client.set_terminated(run_id, status, milliseconds)

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

    def upload_folder(self, run_id: str, folder: Path, name: str) -> None:
        """Keep all files of a folder as artifacts below a name."""
        self._client.log_artifacts(run_id, str(folder), name)

    def register(self, run: FoundRun, exported: Exported, name: str, note: str) -> str:
        """Keep a model with a run and register it as a new version; return its address."""
        import numpy as np
        from mlflow import __version__ as mlflow_version
        from mlflow import pytorch
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec
        from torch import __version__ as torch_version

        example = exported.example
        signature = ModelSignature(
            Schema([TensorSpec(example.dtype, (*[-1] * (example.ndim - 1), example.shape[-1]))]),
            Schema([TensorSpec(np.dtype("float32"), (-1, len(exported.metadata["classes"])))]),
        )
        with tempfile.TemporaryDirectory() as folder, explained_failures(self.uri):
            pytorch.save_model(
                exported.module,
                f"{folder}/model",
                signature=signature,
                input_example=example,
                serialization_format="pt2",
                pip_requirements=[f"mlflow=={mlflow_version}", f"torch=={torch_version.partition('+')[0]}"],
                metadata=dict(exported.metadata),
            )
            self.upload_folder(run.run_id, Path(folder) / "model", "model")
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        tags = {tag: run.tags[tag] for tag in ("study", "strategy", "seed")}
        source = f"{run.artifacts}/model"
        version = self._client.create_model_version(name, source, run.run_id, tags, description=note).version
        return f"models:/{name}/{version}"

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as an artifact."""
        self._client.log_text(run_id, text, name)

    def log_dataset(self, run_id: str, name: str, sha256: str, origin: str) -> None:
        """Say which data a run is about; MLflow keeps 36 characters of the digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(name, sha256[:36], "local", canonical_json({"origin": origin}))
        self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "transfer")])])

    def fail_leftovers(self, study_run_id: str, *, at_the_end: bool = False) -> int:
        """End as KILLED what a killed process left RUNNING in this study; return how many.

        A process that is killed can't end its runs. Only those whose process ran on this host are judged.
        At the end of all runs those of this process are left over too: a server that hung may have begun one
        more than once.
        """
        arms = self._search(f"tags.\"mlflow.parentRunId\" = '{study_run_id}'")
        family = {study_run_id, *(run.info.run_id for run in arms)}
        left = [
            run.info.run_id
            for run in self._search("attributes.status = 'RUNNING'")
            if {run.info.run_id, run.data.tags.get("mlflow.parentRunId")} & family
            and self._is_left(run.data.tags, at_the_end)
        ]
        for run_id in left:
            self.end_leftover(run_id)
        return len(left)

    @staticmethod
    def _is_left(tags: Mapping[str, str], at_the_end: bool) -> bool:
        process = tags.get("bench.process", "::")
        ours = process == this_process() and tags.get("purpose") in {"trial", "final"}
        return has_ended(process) or (at_the_end and ours)

    def end_leftover(self, run_id: str) -> None:
        """End a run as KILLED, unless it has ended by what its process left to be delivered."""
        if self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, "KILLED")


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
