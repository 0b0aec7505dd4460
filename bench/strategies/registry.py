"""All strategies by name: those that come with `bench`, and those of installed packages.

A package offers a strategy by an entry point in the group `bench.strategies`, whose name is the strategy's
and whose object is a `Strategy`. Names are read from the packages' metadata; their code is imported only
when its strategy is asked for, in whichever process that is.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from bench.core.errors import InputError
from bench.core.registry import Registry
from bench.strategies.base import Range, Strategy
from bench.strategies.builtin import BUILTIN
from bench.study.schema import Study

GROUP = "bench.strategies"
CLASS_WEIGHTS = Range(
    0.0, 1.0, 0.0, label="power of the class weights"
)  # the power that they go by, where a study tunes it


class StrategyRegistry(Registry[Strategy]):
    """Strategies by name, in order of registration, then those of other packages by name.

    Raises:
        InputError: when a name is asked for, if two strategies have one name or a package's can't be loaded.
    """

    def __init__(self) -> None:
        super().__init__("strategy")
        for strategy in BUILTIN:
            self.add(strategy)

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        offered: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, _offerer(point))):
            other = "bench" if point.name in self._records else None
            if point.name in offered:
                if offered[point.name] == point and _offerer(offered[point.name]) == _offerer(point):
                    continue  # one package that is found twice
                other = _offerer(offered[point.name])
            if other:
                what = f"{other} and {_offerer(point)} both have a strategy '{point.name}'"
                remedy = f"uninstall {_offerer(point)}, or give its strategy another name"
                raise InputError(what, f"entry points {GROUP}", remedy)
            offered[point.name] = point
        return offered

    def __getitem__(self, name: str) -> Strategy:
        if name in self._offered and name not in self._records:
            self.add(_loaded(self._offered[name]))
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self._offered or name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*(s.name for s in BUILTIN), *self._offered, *self._records]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _offerer(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package without a name"


def _loaded(point: EntryPoint) -> Strategy:
    where, remedy = f"strategy {point.name} of {_offerer(point)}", "mend that package or uninstall it"
    try:
        strategy = point.load()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise InputError(f"can't be loaded ({type(error).__name__}: {reason})", where, remedy) from error
    if not isinstance(strategy, Strategy):
        raise InputError(f"{point.value} is no Strategy but a {type(strategy).__name__}", where, remedy)
    if strategy.name != point.name:
        raise InputError(f"{point.value} calls itself '{strategy.name}'", where, remedy)
    return strategy


STRATEGIES = StrategyRegistry()


def tuned_strategy(name: str, study: Study) -> Strategy:
    """Return a strategy with all that a study tunes of it."""
    strategy = STRATEGIES[name]
    if study.training.class_weights != "tuned":
        return strategy
    return replace(strategy, space={**strategy.space, "class_weights": CLASS_WEIGHTS})


def label_of(hyperparameter: str) -> str:
    """Return what a person calls a hyperparameter of any strategy."""
    spaces = [strategy.search_space for strategy in BUILTIN] + [{"class_weights": CLASS_WEIGHTS}]
    labels = (space[hyperparameter].label for space in spaces if hyperparameter in space)
    return next(filter(None, labels), hyperparameter.replace("_", " "))
