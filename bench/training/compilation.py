"""Whether training steps are compiled: the study's wish, or where it pays."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from bench.core.errors import InputError
from bench.study.schema import Training
from bench.system.notices import warn_once
from bench.training.execution import Execution
from bench.training.step_timing import measured_step, time_step

log = logging.getLogger(__name__)
LONG = 1800.0  # seconds that a study's steps take, from where on compiling one, for a minute or two, is tried
PAYS = 2.0  # times what compiling takes that it must save


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
            time_step(built, compiled, image_size, size)  # what was measured may be of another process
    except Exception as error:  # a compiler that is missing, a model that it can't take, no memory
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        if wish == "always":
            what = f"the model can't be compiled here ({reason})"
            raise InputError(what, "training.compile", "leave it out") from error
        warn_once(log, f"training steps are not compiled ({reason})")
        return execution
    return compiled


def _pays(
    model: nn.Module, execution: Execution, compiled: Execution, image_size: int, steps: Mapping[int, int]
) -> bool:
    """Say whether compiling saves enough: False at once where the steps are few and none is compiled."""
    if sum(steps.values()) * measured_step(model, execution, image_size, max(steps))[1] < LONG:
        return False
    saved = cost = 0.0
    for size, count in steps.items():
        _, eager = measured_step(model, execution, image_size, size)
        first, later = measured_step(model, compiled, image_size, size)
        saved += count * (eager - later)
        cost += first - later
    if saved >= PAYS * cost:
        return True
    warn_once(log, f"training steps are not compiled: it takes {cost:.0f} s and would save {saved:.0f} s")
    return False
