"""All strategies by name."""

from bench.core.registry import Registry
from bench.strategies.base import Strategy
from bench.strategies.builtin import BUILTIN

STRATEGIES: Registry[Strategy] = Registry("strategy")
for _strategy in BUILTIN:
    STRATEGIES.add(_strategy)
