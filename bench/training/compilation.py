"""Training steps that are compiled, where the study asks for it.

On a CPU that saves too little to be tried unasked: a step of `tf_efficientnet_lite0` at 64 pixels on one core
is 1.06 to 1.08 times as fast, for 45 to 105 seconds of compiling in each process. And whoever decides by a
measurement gets numbers that hang on it, in their last bits.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import nn

from bench.core.errors import InputError
from bench.study.schema import Training
from bench.training.execution import Execution
from bench.training.step_timing import time_step


def compiled_if_wished(
    execution: Execution,
    training: Training,
    model: Callable[[], nn.Module],
    image_size: int,
    sizes: Iterable[int],
) -> Execution:
    """Return the execution, compiled if the study asks for it; the compiled code is kept in BENCH_HOME.

    Args:
        execution: without.
        training: its wish matters.
        model: makes a fresh model to try it with, all of whose stages are trained.
        image_size: pixels.
        sizes: of the batches.

    Raises:
        InputError: if the model can't be compiled here.
    """
    if training.compile == "never":
        return execution
    compiled = replace(execution, compiled=tuple(sizes))
    built = model()
    try:
        for size in compiled.compiled:
            time_step(built, compiled, image_size, size)
    except Exception as error:  # a compiler that is missing, a model that it can't take, no memory
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        what = f"the model can't be compiled here ({reason})"
        raise InputError(what, "training.compile", "leave it out") from error
    return compiled
