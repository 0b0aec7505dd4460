"""Register a trained model in MLflow's model registry."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.tracking.client import explained_failures
from bench.tracking.frames import FoundRun
from bench.tracking.store import RunStore


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
    return f"models:/{name}/{version}"


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
        Schema([TensorSpec(np.dtype("float32"), (-1, len(exported.metadata["classes"])))]),
    )
    pytorch.save_model(
        exported.module,
        folder,
        signature=signature,
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[f"mlflow=={mlflow_version}", f"torch=={torch_version.partition('+')[0]}"],
        metadata=dict(exported.metadata),
    )
