"""A strategy is a matrix: where the weights start, and a learning-rate multiplier for each stage and phase.

Zero means frozen. Nothing else distinguishes the strategies, so each one is a few lines of data.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from bench.core.hashing import digest
from bench.core.runs import Value


@dataclass(frozen=True)
class Range:
    """A hyperparameter that is tuned: a closed interval, its default, and how it is sampled."""

    low: float
    high: float
    default: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default {self.default} is outside [{self.low}, {self.high}]")


@dataclass(frozen=True)
class Phase:
    """A part of the epochs, with a multiplier for each stage, input to output, and last for the head."""

    share: float
    multipliers: tuple[float, ...]


@dataclass(frozen=True)
class TransferPlan:
    """Where the weights start, and the matrix of multipliers: a row for each phase.

    Raises:
        ValueError: if rows differ in length, a multiplier is negative or not finite, shares don't add up to
            one, or the head is never trained.
    """

    start: Literal["he", "pretrained"]
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        rows = [phase.multipliers for phase in self.phases]
        if not rows or len({len(row) for row in rows}) != 1:
            raise ValueError("every phase needs one multiplier for each stage and one for the head")
        if any(value < 0 or not math.isfinite(value) for row in rows for value in row):
            raise ValueError("multipliers are finite and not negative")
        if not math.isclose(sum(phase.share for phase in self.phases), 1):
            raise ValueError("the shares of the phases don't add up to 1")
        if not any(row[-1] for row in rows):
            raise ValueError("the head is new: a plan that never trains it says nothing")

    @property
    def stages(self) -> int:
        """How many stages stand before the head."""
        return len(self.phases[0].multipliers) - 1

    @property
    def frozen_prefix(self) -> int:
        """How many leading stages stay frozen in every phase: their output can be computed once."""
        for stage in range(self.stages):
            if any(phase.multipliers[stage] for phase in self.phases):
                return stage
        return self.stages

    @property
    def trains_all(self) -> bool:
        """Whether no stage is frozen in any phase."""
        return all(all(phase.multipliers) for phase in self.phases)

    def matrix(self) -> str:
        """Return the plan as text: a line for each phase."""
        lines = [f"start: {self.start}"]
        for number, phase in enumerate(self.phases, 1):
            *stages, head = (f"{value:.3g}" for value in phase.multipliers)
            lines.append(f"phase {number} ({phase.share:.0%} of the epochs): {' '.join(stages)} · {head}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Strategy:
    """A way of using pretrained weights.

    Args:
        phases: (number of stages, hyperparameters) to the phases of the plan.
        learning_rate: of a multiplier of 1; None where nothing is trained by gradient steps.
        space: what is tuned beside the learning rate and its weight decay.
        solver: how: by gradient steps, or by L-BFGS to the optimum of a linear head.
    """

    name: str
    summary: str
    start: Literal["he", "pretrained"]
    phases: Callable[[int, Mapping[str, Value]], tuple[Phase, ...]]
    learning_rate: Range | None
    space: Mapping[str, Range]
    solver: Literal["gradient", "lbfgs"] = "gradient"

    @property
    def search_space(self) -> dict[str, Range]:
        """Everything that is tuned, by name."""
        if self.learning_rate is None:
            return dict(self.space)
        return {"learning_rate": self.learning_rate, "weight_decay": WEIGHT_DECAY, **self.space}

    @property
    def defaults(self) -> dict[str, Value]:
        """The hyperparameters of the first trial."""
        return {name: int(r.default) if r.integer else r.default for name, r in self.search_space.items()}

    @property
    def fingerprint(self) -> str:
        """A digest of all that the strategy is: an edited one must not find the results of the old one."""
        space = {name: asdict(span) for name, span in self.search_space.items()}
        corners = [
            self.defaults,
            *({n: getattr(r, end) for n, r in self.search_space.items()} for end in ("low", "high")),
        ]
        matrices = [self.plan(stages, params).matrix() for stages in (2, 6) for params in corners]
        return digest([space, matrices] + [self.solver] * (self.solver != "gradient"))

    def plan(self, stages: int, params: Mapping[str, Value]) -> TransferPlan:
        """Return the matrix for a model of so many stages."""
        return TransferPlan(self.start, self.phases(stages, params))


WEIGHT_DECAY = Range(1e-4, 1e-1, 1e-2, log=True)
