"""On what, and in which precision, a study computes: chosen once, by what the device can do, and logged."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.environment import describe, usable_cpus
from bench.errors import InputError
from bench.paths import cache, locked, write_text
from bench.spec import digest
from bench.study import Training

AMPERE = (8, 0)  # the first CUDA capability with bfloat16 and TF32
MUCH_FASTER = 0.75  # of the time in full precision: worth its loss, and more than noise between two machines


@dataclass(frozen=True)
class Execution:
    """A device, as torch names it, and the precision of the forward pass in training."""

    device: str
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a forward pass."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16)


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
    return _measured_precision(model, device, image_size, training.batch_size)


def _measured_precision(model: Callable[[], nn.Module], device: str, image_size: int, batch_size: int) -> str:
    built = model()
    shapes = [[name, list(p.shape)] for name, p in built.named_parameters()]
    key = digest([describe(device, commit=False), shapes, image_size, batch_size])[:32]
    kept = cache() / "precision" / f"{key}.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that can only be read
            stack.enter_context(locked(kept.with_suffix(".lock")))  # of several that begin, one measures
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return _faster(**json.loads(kept.read_text(encoding="utf-8")))
        seconds = {
            precision: _step_seconds(built, Execution(device, precision), image_size, batch_size)
            for precision in ("fp32", "bf16")
        }
        with contextlib.suppress(OSError):  # a full disk: measured again next time
            write_text(kept, json.dumps(seconds))
    return _faster(**seconds)


def _faster(fp32: float, bf16: float) -> str:
    return "bf16" if bf16 < MUCH_FASTER * fp32 else "fp32"


def _step_seconds(model: nn.Module, execution: Execution, image_size: int, batch_size: int) -> float:
    """Time a training step: the faster of two, after one to warm up."""
    images = torch.randn(batch_size, 3, image_size, image_size, device=execution.device)
    images = images.to(memory_format=torch.channels_last)
    model.to(execution.device).train()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        with execution.autocast():
            loss = model(images).float().square().mean()
        loss.backward()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def each_on_a_thread(work: Callable[..., None], pieces: Sequence[tuple[Any, ...]], device: str) -> None:
    """Call `work` with each of `pieces`, on a CPU several at a time with one thread each.

    Convolutions of small batches get more out of the cores so than each with all threads, and what a piece
    gives depends neither on how many threads there are nor on how many pieces.
    """
    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        for piece in pieces:
            work(*piece)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for _ in pool.map(lambda piece: work(*piece), pieces):
            pass
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
