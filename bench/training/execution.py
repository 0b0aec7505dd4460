"""On what, in which precision, and whether compiled a study computes: chosen once, by measurement, logged."""

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.system.locations import home

MOST_GRAPHS = 64  # of one model in a process: two sizes of batches for each number of labels


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
