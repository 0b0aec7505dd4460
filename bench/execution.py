"""On what, in which precision, and whether compiled a study computes: chosen once, by measurement, logged."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.environment import describe, usable_cpus
from bench.errors import InputError
from bench.paths import cache, home, locked, write_text
from bench.spec import digest
from bench.study import Training

log = logging.getLogger(__name__)

AMPERE = (8, 0)  # the first CUDA capability with bfloat16 and TF32
MUCH_FASTER = 0.75  # of the time in full precision: worth its loss, and more than noise between two machines
LONG = 1800.0  # seconds that a study's steps take, from where on compiling one, for a minute or two, is tried
MOST_GRAPHS = 64  # of one model in a process: two sizes of batches for each number of labels
PAYS = 2.0  # times what compiling takes that it must save


@dataclass(frozen=True)
class Execution:
    """How a study computes.

    Args:
        device: as torch names it.
        precision: of the forward pass in training.
        compiled: sizes of the batches for which a training step is compiled.
    """

    device: str
    precision: str
    compiled: tuple[int, ...] = ()

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a forward pass."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16)

    def forward(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return what does the forward pass of a training step; predictions are never compiled.

        Modules of one structure share what was compiled: in a process at once, in another one after some
        seconds, from BENCH_HOME. A graph for any size would be as slow as none (measured on a CPU).
        """
        if not self.compiled:
            return module
        torch._dynamo.config.recompile_limit = MOST_GRAPHS  # noqa: SLF001
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on a CPU
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "compiled"))  # a cache may be others'
        # Dropout as without; and no processes beside this one.
        options: dict[str, Any] = {"fallback_random": True, "compile_threads": 1}
        compiled = torch.compile(module, fullgraph=True, dynamic=False, options=options)
        return lambda images: (compiled if len(images) in self.compiled else module)(images)


def choose_device(wish: str) -> str:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:<i>`; raise InputError if there is none such."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "auto":
        return "cuda:0" if available else "cpu"
    if wish == "cpu":
        return wish
    kind, _, index = wish.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise InputError(f"unknown device '{wish}'", "--device", "valid: auto, cpu, cuda, cuda:<number>")
    if int(index or 0) >= available:
        raise InputError(f"there is no device {wish}; CUDA devices here: {available}", "--device", "use auto")
    return f"cuda:{index or 0}"


def has_fast_bf16(device: str) -> bool:
    """Return whether bfloat16 has instructions here (`is_autocast_available` says yes everywhere)."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= AMPERE
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def choose_precision(training: Training, device: str, model: Callable[[], nn.Module], image_size: int) -> str:
    """Return the precision of training: the study's wish, or what is faster here.

    A CPU with bfloat16 instructions can still be slower with them, so both are measured, once for a machine,
    model, size and versions; what was found is kept in the cache.

    Args:
        training: its precision and batch size matter.
        device: where it will run.
        model: makes a fresh model to measure with.
        image_size: pixels.

    Raises:
        InputError: if bf16 is wished where the processor has no instructions for it.
    """
    if training.precision == "bf16" and not has_fast_bf16(device):
        raise InputError(f"{device} has no bfloat16 instructions", "training.precision", "use auto or fp32")
    if training.precision != "auto":
        return training.precision
    if not has_fast_bf16(device):
        return "fp32"
    if device.startswith("cuda"):
        return "bf16"
    built = model()
    seconds = {
        precision: _measured_step(built, Execution(device, precision), image_size, training.batch_size)[1]
        for precision in ("fp32", "bf16")
    }
    return "bf16" if seconds["bf16"] < MUCH_FASTER * seconds["fp32"] else "fp32"


def compiled_where_it_pays(
    execution: Execution,
    training: Training,
    model: Callable[[], nn.Module],
    image_size: int,
    steps: Mapping[int, int],
) -> Execution:
    """Return the execution, compiled if the study asks for it, or if that is found to pay.

    It is tried only where the steps take `LONG` without; what was found is kept in the cache, the
    compiled code in BENCH_HOME.

    Args:
        execution: without.
        training: its wish matters.
        model: makes a fresh model to measure with, all of whose stages are trained.
        image_size: pixels.
        steps: size of a batch to the number of steps that the study takes on such, with all stages trained.

    Raises:
        InputError: if the study asks for it, and the model can't be compiled here.
    """
    wish = training.compile
    if wish == "never":
        return execution
    built, compiled = model(), replace(execution, compiled=tuple(steps))
    try:
        if wish is None and not _pays(built, execution, compiled, image_size, steps):
            return execution
        for size in steps:
            _time_step(built, compiled, image_size, size)  # what was measured may be of another process
    except Exception as error:  # a compiler that is missing, a model that it can't take, no memory
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        if wish == "always":
            what = f"the model can't be compiled here ({reason})"
            raise InputError(what, "training.compile", "leave it out") from error
        log.warning("bench: training steps are not compiled (%s)", reason)
        return execution
    return compiled


def _pays(
    model: nn.Module, execution: Execution, compiled: Execution, image_size: int, steps: Mapping[int, int]
) -> bool:
    if sum(steps.values()) * _measured_step(model, execution, image_size, max(steps))[1] < LONG:
        return False
    saved = cost = 0.0
    for size, count in steps.items():
        _, eager = _measured_step(model, execution, image_size, size)
        first, later = _measured_step(model, compiled, image_size, size)
        saved += count * (eager - later)
        cost += first - later
    return saved >= PAYS * cost


def _measured_step(
    model: nn.Module, execution: Execution, image_size: int, batch_size: int
) -> tuple[float, float]:
    """Return what `_time_step` does, measured once for a machine, its versions, a model and a batch."""
    shapes = [[name, list(p.shape)] for name, p in model.named_parameters()]
    where = describe(execution.device, commit=False)
    key = digest([where, execution.precision, bool(execution.compiled), shapes, image_size, batch_size])[:32]
    kept = cache() / "steps" / f"{key}.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that can only be read
            stack.enter_context(locked(kept.with_suffix(".lock")))  # of several that begin, one measures
        with contextlib.suppress(OSError, ValueError, TypeError):
            first, later = map(float, json.loads(kept.read_text(encoding="utf-8")))
            return first, later
        seconds = _time_step(model, execution, image_size, batch_size)
        with contextlib.suppress(OSError):  # a full disk: measured again next time
            write_text(kept, json.dumps(seconds))
    return seconds


def _time_step(
    model: nn.Module, execution: Execution, image_size: int, batch_size: int
) -> tuple[float, float]:
    """Return the seconds of a first training step, which may compile, and of the faster of two more."""
    images = torch.randn(batch_size, 3, image_size, image_size, device=execution.device)
    images = images.to(memory_format=torch.channels_last)
    forward = execution.forward(model.to(execution.device).train())
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        with execution.autocast():
            loss = forward(images).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # then a GPU has done it all
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:])


def each_on_a_thread(
    work: Callable[..., None],
    pieces: Sequence[tuple[Any, ...]],
    device: str,
    note: Callable[[int], None] = lambda _count: None,
) -> None:
    """Call `work` with each of `pieces`, on a CPU several at a time with one thread each.

    `note` is told, in the caller's thread, how many of the first pieces are done.

    Convolutions of small batches get more out of the cores so than each with all threads, and what a piece
    gives depends neither on how many threads there are nor on how many pieces.
    """
    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        for count, piece in enumerate(pieces, 1):
            work(*piece)
            note(count)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for count, _ in enumerate(pool.map(lambda piece: work(*piece), pieces), 1):
            note(count)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # some of it is one number for all


def prepare(device: str, threads: int | None, *, deterministic: bool, full_precision: bool) -> None:
    """Set torch up for a device, once in a process.

    Args:
        device: as `choose_device` gives it.
        threads: on the CPU; None: as many as processors are available to this process.
        deterministic: let every operation give the same bits each time on a GPU too; one that can't raises a
            RuntimeError, with which its run fails. On a CPU they do anyway, and others are left alone.
        full_precision: let no matrix be multiplied in TF32, which is many times faster where there is any.
    """
    torch.set_num_threads(threads or usable_cpus())
    if deterministic and device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
        torch.use_deterministic_algorithms(True)
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= AMPERE:
        torch.set_float32_matmul_precision("highest" if full_precision else "high")
        torch.backends.cudnn.allow_tf32 = not full_precision
