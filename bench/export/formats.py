"""The forms in which a model is written to a folder, each with how it is read again to be compared."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.core.errors import InputError
from bench.core.registry import Registry
from bench.export.model_facts import ModelFacts
from bench.export.served_model import ServedModel, build_served
from bench.system.hardware import usable_cpus

Probabilities = Callable[[np.ndarray], np.ndarray]  # uint8 (N, side, side, 3) to float32 (N, classes, ...)
INPUT, OUTPUT = "images", "probabilities"  # of an ONNX graph


@dataclass(frozen=True)
class Format:
    """A form of a model.

    Args:
        name: what people type.
        summary: one line.
        file: its name in an export.
        write: writes a model, which is on the CPU.
        read: returns what computes probabilities as whoever loads the file would.
        needs: packages of the extra of its name, which may be missing.
        imports, loading: lines of Python that load the file and compute `probabilities` of `images`.
    """

    name: str
    summary: str
    file: str
    write: Callable[[ServedModel, Path], None]
    read: Callable[[Path, ModelFacts], Probabilities]
    imports: str
    loading: str
    needs: tuple[str, ...] = ()

    def check_installed(self) -> None:
        """Raise InputError if what it needs is not installed."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            what = f"the format {self.name} needs {' and '.join(missing)}"
            raise InputError(what, "--format", f"pip install 'transfer-bench[{self.name}]'")


def _write_safetensors(model: ServedModel, file: Path) -> None:
    from safetensors.torch import save  # and not `save_file`, whose files nobody else may read

    file.write_bytes(save({name: t.contiguous() for name, t in model.model.state_dict().items()}))


def _read_safetensors(file: Path, facts: ModelFacts) -> Probabilities:
    from safetensors.torch import load

    return _of_module(build_served(facts, load(file.read_bytes()), whole=True))


def _exported(model: ServedModel) -> "torch.export.ExportedProgram":
    """Return a model as a graph that takes any number of images."""
    side = model.facts.side
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # one would fix the number
    return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("images")},))


def _write_torch(model: ServedModel, file: Path) -> None:
    with _quietly():
        torch.export.save(_exported(model), file)


def _read_torch(file: Path, _facts: ModelFacts) -> Probabilities:
    with _quietly():
        return _of_module(torch.export.load(file).module())


def _of_module(module: torch.nn.Module) -> Probabilities:
    def compute(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(images)).numpy())

    return compute


def _write_onnx(model: ServedModel, file: Path) -> None:
    with _quietly():
        program = torch.onnx.export(
            _exported(model), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
        )
        assert program is not None
        program.save(str(file))


def _read_onnx(file: Path, _facts: ModelFacts) -> Probabilities:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


@contextmanager
def _quietly() -> Iterator[None]:
    """Let torch keep to itself what its exporters tell those who develop them; what fails is raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


FORMATS: Registry[Format] = Registry("format")
FORMATS.add(
    Format(
        "safetensors",
        "weights and a description, which this package loads",
        "model.safetensors",
        _write_safetensors,
        _read_safetensors,
        "import torch\nfrom bench.export.exported import load",
        """\
model = load(".")
probabilities = model(torch.from_numpy(images)).detach().numpy()
""",
    )
)
FORMATS.add(
    Format(
        "torch",
        "a graph of torch.export, which PyTorch alone loads",
        "model.pt2",
        _write_torch,
        _read_torch,
        "import torch",
        """\
model = torch.export.load("model.pt2").module()
probabilities = model(torch.from_numpy(images)).detach().numpy()
""",
    )
)
FORMATS.add(
    Format(
        "onnx",
        "a graph that ONNX Runtime and others load",
        "model.onnx",
        _write_onnx,
        _read_onnx,
        "import onnxruntime",
        """\
model = onnxruntime.InferenceSession("model.onnx")
(probabilities,) = model.run(None, {"images": images})
""",
        needs=("onnx", "onnxruntime", "onnxscript"),
    )
)


def formats_named(text: str) -> list[Format]:
    """Return the formats in `torch,onnx`; `safetensors`, which `bench predict` takes, always with them.

    Raises:
        InputError: for one that there is not, or that needs what is not installed.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = [FORMATS.get_or_raise(name, "--format") for name in dict.fromkeys(["safetensors", *names])]
    for each in found:
        each.check_installed()
    return found
