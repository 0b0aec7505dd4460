"""A folder that `bench export` wrote: its model is loaded, without the run store and the source's weights."""

from pathlib import Path

from safetensors import SafetensorError

from bench.core.errors import InputError
from bench.export.model_facts import read_facts
from bench.export.served_model import ServedModel, build_served

FACTS, WEIGHTS, CARD = "model.json", "model.safetensors", "README.md"


def is_export(path: Path) -> bool:
    """Say whether a path is an exported model: its folder, or a file in it."""
    return (_folder(path) / FACTS).is_file()


def load(path: Path | str) -> ServedModel:
    """Return an exported model, on the CPU. Nothing in the files is executed.

    Args:
        path: its folder, or a file in it.

    Raises:
        InputError: if it can't be read, or is no whole export.
    """
    from safetensors.torch import load as load_tensors

    folder = _folder(Path(path))
    facts = read_facts(folder / FACTS)
    try:
        tensors = load_tensors((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(folder / WEIGHTS)) from error
    except SafetensorError as error:
        raise InputError(f"is damaged ({error})", str(folder / WEIGHTS), "export it again") from error
    return build_served(facts, tensors, whole=True)


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path
