"""A strategy is a matrix and little more: where weights start, and how fast each stage learns in each phase.

Zero means frozen. What the matrix can't say stands beside it, in optional fields of the same record: which
parameters of a stage are trained, an adapter, a pull towards the start, where the head reads, and whether a
phase takes gradient steps or solves for the head.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from bench.core.errors import InputError
from bench.core.hashing import digest
from bench.core.runs import Value
from bench.strategies.plan import Adapter, Parameters, Phase, Start, TransferPlan

T = TypeVar("T")
Rule = Callable[[int, Mapping[str, Value]], T]  # from the number of stages and the hyperparameters
STAGES = (2, 6)  # of the models for which a fingerprint evaluates the rules


@dataclass(frozen=True)
class Range:
    """A hyperparameter that is tuned: a closed interval, its default, how it is sampled, its name."""

    low: float
    high: float
    default: float
    log: bool = False
    integer: bool = False
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default {self.default} is outside [{self.low}, {self.high}]")

    def at(self, share: float) -> Value:
        """Return the value at a share of the way from low to high, in [0, 1); on a log scale if it is one."""
        if self.integer:
            return int(self.low) + int(share * (int(self.high) - int(self.low) + 1))
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + share * (self.high - self.low))


@dataclass(frozen=True)
class Strategy:
    """A way of using pretrained weights.

    Args:
        phases: the rows of the matrix.
        learning_rate: of a multiplier of 1; None where nothing is trained by gradient steps.
        space: what is tuned beside the learning rate, its weight decay and the pull towards the start.
        parameters: which parameters of a trained stage are trained; of the head it is always all.
        l2_sp: the strength of the pull towards the start, where there is one; see `TransferPlan`.
        readout: how many leading stages the head reads behind, pooled; None: behind the whole backbone.
        adapter: what is added to the backbone.
        requires: modules that must be installed, each of which is an optional extra of the same name.
    """

    name: str
    summary: str = field(compare=False)
    start: Start
    phases: Rule[tuple[Phase, ...]]
    learning_rate: Range | None
    space: Mapping[str, Range]
    parameters: Parameters = "all"
    l2_sp: Range | None = None
    readout: Rule[int] | None = None
    adapter: Rule[Adapter] | None = None
    requires: tuple[str, ...] = field(default=(), compare=False)

    @property
    def search_space(self) -> dict[str, Range]:
        """Everything that is tuned, by name."""
        if self.learning_rate is None:
            return dict(self.space)
        pull = {"l2_sp": self.l2_sp} if self.l2_sp else {}
        return {"learning_rate": self.learning_rate, "weight_decay": WEIGHT_DECAY, **pull, **self.space}

    @property
    def defaults(self) -> dict[str, Value]:
        """The hyperparameters of the first trial."""
        return {name: int(r.default) if r.integer else r.default for name, r in self.search_space.items()}

    @property
    def fingerprint(self) -> str:
        """A digest of all that the strategy is: an edited one must not find the results of the old one.

        All fields count that are compared and not at their default, so that a new optional one changes no
        digest; a rule counts by what it gives at the default and at both ends of the search space.
        """
        space = self.search_space
        ends = ({name: getattr(r, end) for name, r in space.items()} for end in ("low", "high"))
        corners = [self.defaults, *ends]
        cases = [(stages, params) for stages in STAGES for params in corners]
        return digest([_described(self, cases), _described(space, cases)])

    def plan(self, stages: int, params: Mapping[str, Value]) -> TransferPlan:
        """Return the matrix, and what stands beside it, for a model of so many stages."""
        return TransferPlan(
            self.start,
            self.phases(stages, params),
            parameters=self.parameters,
            l2_sp=float(params["l2_sp"]) if self.l2_sp else 0.0,
            readout=self.readout(stages, params) if self.readout else None,
            adapter=self.adapter(stages, params) if self.adapter else None,
        )

    def check_installed(self, where: str) -> None:
        """Raise InputError if a module is missing that the strategy needs."""
        for module in self.requires:
            if importlib.util.find_spec(module) is None:
                remedy = f"pip install 'transfer-bench[{module}]'"
                raise InputError(f"{self.name} needs the package {module}", where, remedy)


def _described(value: Any, cases: Sequence[tuple[int, Mapping[str, Value]]]) -> Any:
    """Return a value as JSON types; a rule is described by what it gives in each case."""
    if is_dataclass(value) and not isinstance(value, type):
        compared = [(f.name, getattr(value, f.name), f.default) for f in fields(value) if f.compare]
        return {name: _described(one, cases) for name, one, default in compared if one != default}
    if isinstance(value, Mapping):
        return {name: _described(one, cases) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_described(one, cases) for one in value]
    if callable(value):
        return [_described(value(stages, params), cases) for stages, params in cases]
    return value


WEIGHT_DECAY = Range(1e-4, 1e-1, 1e-2, log=True, label="weight decay")
