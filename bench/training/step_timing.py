"""What a training step takes here, measured once for a machine, its versions, a model and a batch."""

import contextlib
import json
import time

import torch
from torch import nn

from bench.core.hashing import digest
from bench.system.files import write_text
from bench.system.locations import cache
from bench.system.locks import locked
from bench.system.provenance import describe
from bench.training.execution import (
    Execution,
)


def measured_step(
    model: nn.Module, execution: Execution, image_size: int, batch_size: int
) -> tuple[float, float]:
    """Return what `time_step` does, measured once for a machine, its versions, a model and a batch."""
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
        seconds = time_step(model, execution, image_size, batch_size)
        with contextlib.suppress(OSError):  # a full disk: measured again next time
            write_text(kept, json.dumps(seconds))
    return seconds


def time_step(
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
