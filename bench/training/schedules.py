"""Learning-rate schedules, and the rule by which a phase of training ends."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer

from bench.study.schema import Training


def rate_factor(progress: float, training: Training) -> float:
    """Return the share of the peak learning rate at a share of the phase, both in [0, 1].

    one_cycle: Smith and Topin 2018, cosine up from 1/25 over the warm-up and down to 1/10,000. cosine:
    Loshchilov and Hutter 2017 after a linear warm-up. step: a drop every `step_every` of the phase. plateau:
    its part before the rate goes down, see `Course`.
    """
    if training.schedule == "constant":
        return 1.0
    if training.schedule == "plateau":
        return min(1.0, progress / training.warmup) if training.warmup else 1.0
    if training.schedule == "step":
        return float(training.step_factor ** math.floor(progress / training.step_every + 1e-9))
    rising = progress < training.warmup
    share = progress / training.warmup if rising else (progress - training.warmup) / (1 - training.warmup)
    if training.schedule == "one_cycle":
        low, high = (1 / 25, 1.0) if rising else (1.0, 1e-4)
        return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
    return share if rising else (1 + math.cos(math.pi * share)) / 2


class Course:
    """The learning rate of a phase, step by step, and when the phase is over.

    All schedules but `plateau` are fixed before the first step. `plateau` rises to its peak over the warm-up
    and stays there until val has not been better for `patience` evaluations, or until only the cooldown is
    left of the steps; then it falls to zero as one minus a square root. The cooldown is in proportion to the
    steps before it. What is compared between two runs at the same step was reached at the same rate, and a
    curve that still rises at the end says that steps were lacking; under a rate that falls from the beginning
    it always rises (Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
    durations", section 3).

    Args:
        training: the study's.
        evaluations: the phase's steps after which val is looked at, counted from its first; not empty.
        may_stop: whether a plateau ends it early.
    """

    def __init__(self, training: Training, evaluations: Sequence[int], *, may_stop: bool) -> None:
        self.training, self.evaluations, self.may_stop = training, evaluations, may_stop
        self.last = len(evaluations)  # evaluations until the phase is over
        self._values: list[float] = []
        self._falls_after: int | None = None  # evaluations until the rate goes down
        if training.schedule == "plateau" and self._longest == 0:
            self._falls_after = 0

    @property
    def _cooldown(self) -> int:
        """How many evaluations of a phase that takes all its steps are in its cooldown."""
        return max(1, round(self.training.cooldown * len(self.evaluations)))

    @property
    def _longest(self) -> int:
        return len(self.evaluations) - self._cooldown

    @property
    def is_over(self) -> bool:
        """Whether the phase has had its last evaluation."""
        return len(self._values) >= self.last

    @property
    def steps_done(self) -> int:
        """The phase's steps until the last evaluation."""
        return self.evaluations[len(self._values) - 1] if self._values else 0

    @property
    def next_evaluation(self) -> int:
        """The phase's steps until the next evaluation."""
        return self.evaluations[len(self._values)]

    def note(self, value: float) -> None:
        """Note what an evaluation on val gave: higher is better."""
        self._values.append(value)
        if self.training.schedule != "plateau" or self._falls_after is not None:
            return
        done = len(self._values)
        if done == self._longest or (self.may_stop and self._is_flat()):
            self._falls_after = done
            self.last = done + max(1, round(done * self._cooldown / self._longest))

    def _is_flat(self) -> bool:
        """Say whether the last `patience` evaluations, all at the peak rate, gave nothing better."""
        best = max(range(len(self._values)), key=lambda n: (self._values[n], -n))
        warm = self.training.warmup * self.evaluations[-1]
        after_warmup = sum(self.evaluations[n] > warm for n in range(best + 1, len(self._values)))
        return after_warmup >= self.training.patience

    def factor(self, step: int) -> float:
        """Return the share of the peak learning rate of a step, counted from 0."""
        rising = rate_factor(min((step + 0.5) / self.evaluations[-1], 1.0), self.training)
        if self._falls_after is None:
            return rising
        first = self.evaluations[self._falls_after - 1] if self._falls_after else 0
        fallen = (step + 0.5 - first) / (self.evaluations[self.last - 1] - first)
        return rising * (1 - math.sqrt(min(1.0, max(0.0, fallen))))


def set_rates(optimizer: Optimizer, course: Course, step: int) -> float:
    """Set the learning rates of a step of the phase, counted from 0; return the highest."""
    factor = course.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(max(group["lr"] for group in optimizer.param_groups))
