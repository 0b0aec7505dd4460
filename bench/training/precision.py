"""In which precision the backbone is trained: the study's wish, or what is faster here."""

from collections.abc import Callable

import torch
from torch import nn

from bench.core.errors import InputError
from bench.study.schema import Training
from bench.training.devices import (
    AMPERE,
)
from bench.training.execution import (
    Execution,
)
from bench.training.step_timing import (
    measured_step,
)

MUCH_FASTER = 0.75  # of the time in full precision: worth its loss, and more than noise between two machines


def has_fast_bf16(device: str) -> bool:
    """Return whether bfloat16 has instructions here (`is_autocast_available` says yes everywhere)."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= AMPERE
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def must_measure_precision(training: Training, device: str) -> bool:
    """Say whether only a measurement tells which precision is faster: on a CPU with bfloat16 instructions."""
    return training.precision == "auto" and device == "cpu" and has_fast_bf16(device)


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
    if not must_measure_precision(training, device):
        return "bf16" if has_fast_bf16(device) else "fp32"
    built = model()
    seconds = {
        precision: measured_step(built, Execution(device, precision), image_size, training.batch_size)[1]
        for precision in ("fp32", "bf16")
    }
    return "bf16" if seconds["bf16"] < MUCH_FASTER * seconds["fp32"] else "fp32"
