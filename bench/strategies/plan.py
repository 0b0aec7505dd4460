"""A strategy's plan for one model, and every question that is asked about it."""

import math
from dataclasses import dataclass
from typing import Literal

Start = Literal["he", "pretrained"]
Parameters = Literal["all", "norm", "bias", "adapter"]
Solver = Literal["gradient", "logistic", "hinge"]


@dataclass(frozen=True)
class Phase:
    """A part of the epochs, with a multiplier for each stage, input to output, and last for the head.

    It begins with the weights, the head's among them, that the phase before left: a head that is solved is
    the one that the next phase starts from.

    Args:
        share: of the epochs; 0 for a phase that is solved before others train.
        multipliers: of the learning rate; 0 is frozen.
        solver: by gradient steps, or to the optimum of a linear head: logistic regression by L-BFGS, or a
            support vector machine.
    """

    share: float
    multipliers: tuple[float, ...]
    solver: Solver = "gradient"

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved instead of trained."""
        return self.solver != "gradient"


@dataclass(frozen=True)
class Adapter:
    """Trained parameters beside frozen ones.

    Args:
        kind: a name in `models.adapters.ADAPTERS`.
        rank: of the change that each layer's weights can take.
        scale: of that change.
    """

    kind: str
    rank: int
    scale: float


@dataclass(frozen=True)
class TransferPlan:
    """Where the weights start, the matrix of multipliers (a row for each phase), and what stands beside it.

    Args:
        parameters: which parameters of a trained stage are trained; of the head it is always all.
        l2_sp: alpha of the penalty alpha / 2 times the squared distance of the trained weights of the stages
            from where they started; it replaces their weight decay (Li, Grandvalet and Davoine 2018).
        readout: how many leading stages the head reads behind, pooled; None: behind the whole backbone.
        adapter: what is added to the backbone.

    Raises:
        ValueError: if rows differ in length, a multiplier is negative or not finite, shares don't add up to
            one, the head is never trained, or what stands beside the matrix contradicts it.
    """

    start: Start
    phases: tuple[Phase, ...]
    parameters: Parameters = "all"
    l2_sp: float = 0.0
    readout: int | None = None
    adapter: Adapter | None = None

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
        self._check_solved_phases()
        self._check_what_stands_beside()

    def _check_solved_phases(self) -> None:
        for phase in self.phases:
            if phase.is_solved and (any(phase.multipliers[:-1]) or not phase.multipliers[-1]):
                raise ValueError("a phase that is solved trains the head and nothing else")
            if phase.is_solved and phase.share and len(self.phases) > 1:
                raise ValueError("a phase that is solved before others takes no share of the epochs")
        if len(self.phases) > 1 and self.phases[-1].is_solved:
            raise ValueError("the last of several phases takes gradient steps")

    def _check_what_stands_beside(self) -> None:
        if (self.parameters == "adapter") != (self.adapter is not None):
            raise ValueError("an adapter, and training nothing else of a stage, belong together")
        if self.start == "he" and (self.parameters != "all" or self.l2_sp or self.readout):
            raise ValueError("from a random start everything is trained, and nothing is held near it")
        if not (math.isfinite(self.l2_sp) and self.l2_sp >= 0):
            raise ValueError("the pull towards the start is finite and not negative")
        if self.readout is not None:
            if not 1 <= self.readout <= self.stages:
                raise ValueError(f"a head can't read behind stage {self.readout} of {self.stages}")
            if any(any(phase.multipliers[self.readout : -1]) for phase in self.phases):
                raise ValueError("a stage behind the one that the head reads is not trained")

    @property
    def stages(self) -> int:
        """How many stages stand before the head."""
        return len(self.phases[0].multipliers) - 1

    @property
    def frozen_prefix(self) -> int:
        """How many leading stages stay frozen in every phase: their output can be computed once."""
        return self.unchanged_prefix(len(self.phases) - 1)

    def unchanged_prefix(self, phase: int) -> int:
        """Return how many leading stages are as they started in a phase: frozen in it and in those before."""
        trained = (any(p.multipliers[s] for p in self.phases[: phase + 1]) for s in range(self.stages))
        return next((stage for stage, moved in enumerate(trained) if moved), self.stages)

    def is_trained(self, stage: int) -> bool:
        """Say whether any phase trains a stage."""
        return any(phase.multipliers[stage] for phase in self.phases)

    def has_moved(self, stage: int) -> bool:
        """Say whether a stage ends elsewhere than at the pretrained weights."""
        return self.start == "he" or self.is_trained(stage)

    def in_training_mode(self, phase: int) -> tuple[bool, ...]:
        """Return for each stage and the head whether it is in training mode, with the batch's statistics.

        A frozen stage is not, and neither is one whose own weights are frozen beside an adapter.
        """
        *stages, head = map(bool, self.phases[phase].multipliers)
        return (*(trained and self.parameters != "adapter" for trained in stages), head)

    @property
    def trains_only_head(self) -> bool:
        """Whether the pretrained backbone is frozen in every phase."""
        return self.start == "pretrained" and self.frozen_prefix == self.stages

    @property
    def trains_all(self) -> bool:
        """Whether every gradient step trains all parameters of all stages."""
        rows = [phase.multipliers for phase in self.phases if not phase.is_solved]
        return self.parameters == "all" and bool(rows) and all(all(row) for row in rows)

    @property
    def is_solved(self) -> bool:
        """Whether no phase takes gradient steps."""
        return all(phase.is_solved for phase in self.phases)

    @property
    def needs_linear_head(self) -> bool:
        """Whether the head must be one linear layer, on pooled features."""
        return self.readout is not None or any(phase.is_solved for phase in self.phases)

    def matrix(self) -> str:
        """Return the plan as text: a line for each phase, then what stands beside."""
        lines = [f"start: {self.start}"]
        for number, phase in enumerate(self.phases, 1):
            *stages, head = (f"{value:.3g}" for value in phase.multipliers)
            how = f"solved, {phase.solver}" if phase.is_solved else f"{phase.share:.0%} of the epochs"
            lines.append(f"phase {number} ({how}): {' '.join(stages)} · {head}")
        if self.parameters != "all":
            lines.append(f"trained of each stage: {self.parameters}")
        if self.adapter:
            lines.append(f"adapter: {self.adapter.kind} of rank {self.adapter.rank}")
        if self.l2_sp:
            lines.append(f"held near the start by L2-SP: {self.l2_sp:.3g}")
        if self.readout:
            lines.append(f"the head reads behind stage {self.readout} of {self.stages}, pooled")
        return "\n".join(lines)
