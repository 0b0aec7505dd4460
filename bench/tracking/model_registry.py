"""MLflow's model registry: a trained model is registered, once, and found again."""

import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, RefusedError
from bench.tracking.client import explained_failures
from bench.tracking.connection import open_client
from bench.tracking.frames import FoundRun
from bench.tracking.store import RunStore

SCHEME = "models:/"
LATEST = "latest"
# A name, and perhaps which version: `name`, `name@2`, `name/2`, `name@alias`; also with `models:/` in front.
_ADDRESS = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:[/@](?P<version>[^/@]+))?")


@dataclass(frozen=True, eq=False)
class Exported:
    """A torch module that is to be registered.

    Args:
        module: takes one array and gives one, float32.
        example: of its input; all but its last dimension may differ.
        answers: of its output for the example: its first dimension is that of the images, others stay.
        metadata: JSON types; kept in the model's `MLmodel` file.
    """

    module: Any
    example: Any
    answers: tuple[int, ...]
    metadata: Mapping[str, Any]


def version_of(store: RunStore, run_id: str, name: str) -> str | None:
    """Return the address of the version of a model that a run was registered as; None if it was not."""
    found = store.connection.client.search_model_versions(f"name = '{name}'")
    versions = [int(version.version) for version in found if version.run_id == run_id]
    return f"{SCHEME}{name}/{max(versions)}" if versions else None


def register(store: RunStore, run: FoundRun, exported: Exported, name: str, note: str) -> str:
    """Keep a model with a run and register it as a new version of `name`; return its address."""
    client = store.connection.client
    with tempfile.TemporaryDirectory() as folder, explained_failures(store.connection.uri):
        _save(exported, f"{folder}/model")
        store.writer.upload_folder(run.run_id, Path(folder) / "model", "model")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {tag: run.tags[tag] for tag in ("study", "strategy", "seed")}
    source = f"{run.artifacts}/model"
    version = client.create_model_version(name, source, run.run_id, tags, description=note).version
    return f"{SCHEME}{name}/{version}"


def names(uri: str | None) -> list[str]:
    """Return the names of all registered models."""
    return [str(model.name) for model in open_client(uri).search_registered_models()]


def run_of(uri: str | None, address: str) -> str | None:
    """Return the id of the run that a registered model is of; None if there is no model of that name.

    Args:
        uri: of the store.
        address: a name, which means its latest version, or one with a version or an alias.

    Raises:
        InputError: if the model has no such version.
    """
    asked = _ADDRESS.fullmatch(address)
    if not asked:
        return None
    client, name, wanted = open_client(uri), asked["name"], asked["version"] or LATEST
    versions = client.search_model_versions("name = '{}'".format(name.replace("'", "")))
    if not versions:
        return None
    numbers = sorted(int(version.version) for version in versions)
    by_number = {int(version.version): version for version in versions}
    if wanted == LATEST:
        return str(by_number[numbers[-1]].run_id)
    if wanted.isdecimal() and int(wanted) in by_number:
        return str(by_number[int(wanted)].run_id)
    try:
        return str(client.get_model_version_by_alias(name, wanted).run_id)
    except RefusedError as error:
        there = f"there {'are' if len(numbers) > 1 else 'is'} {', '.join(map(str, numbers))}"
        raise InputError(f"{name} has no version '{wanted}'", address, there) from error


def _save(exported: Exported, folder: str) -> None:
    """Write a model in MLflow's format, as an exported program: loading it unpickles nothing."""
    import numpy as np
    from mlflow import __version__ as mlflow_version
    from mlflow import pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from torch import __version__ as torch_version

    example = exported.example
    signature = ModelSignature(
        Schema([TensorSpec(example.dtype, (*[-1] * (example.ndim - 1), example.shape[-1]))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, *exported.answers[1:]))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about what nobody here can change
        pytorch.save_model(
            exported.module,
            folder,
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"mlflow=={mlflow_version}", f"torch=={torch_version.partition('+')[0]}"],
            metadata=dict(exported.metadata),
        )
