"""Learning-rate schedules as pure functions of the share of a phase."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.study.schema import Training


def rate_factor(progress: float, training: Training) -> float:
    """Return the share of the peak learning rate at a share of the phase, both in [0, 1].

    one_cycle: Smith and Topin 2018, cosine up from 1/25 over the warm-up and down to 1/10,000. cosine:
    Loshchilov and Hutter 2017 after a linear warm-up. step: a drop every `step_every` of the phase.
    """
    if training.schedule == "constant":
        return 1.0
    if training.schedule == "step":
        return float(training.step_factor ** math.floor(progress / training.step_every + 1e-9))
    rising = progress < training.warmup
    share = progress / training.warmup if rising else (progress - training.warmup) / (1 - training.warmup)
    if training.schedule == "one_cycle":
        low, high = (1 / 25, 1.0) if rising else (1.0, 1e-4)
        return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
    return share if rising else (1 + math.cos(math.pi * share)) / 2


def build_schedule(optimizer: Optimizer, training: Training, steps: int) -> LambdaLR:
    """Build the schedule of a phase; step `i` of `steps` uses the factor at (i + 1/2) / steps."""
    return LambdaLR(optimizer, lambda step: rate_factor(min((step + 0.5) / steps, 1.0), training))
