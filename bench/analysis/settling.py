"""What would settle what is open: how many seeds or test images it takes, if differences stay as they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.comparisons import ALPHA, Comparison
from bench.analysis.sequential import settles
from bench.analysis.spread import Spread
from bench.core.text import listed
from bench.system.command_line import with_option

MOST_SEEDS = 50  # looked at; nobody runs more
MOST_IMAGES = 100  # times those that there are
FEWEST_SEEDS = 5  # from which on it can be seen how much seeds differ


@dataclass(frozen=True)
class Settling:
    """What it takes to settle the comparison that is furthest from being settled.

    Args:
        strategy, other: what is compared.
        seeds: how many there would have to be, with these test images. None: no number up to 50 is enough.
        images: how many test images there would have to be, with these seeds. None: more than 100 times as
            many.
        sentence: in plain words, with the difference.
        command: that runs so many seeds; empty where seeds don't settle it.
    """

    strategy: str
    other: str
    seeds: int | None
    images: int | None
    sentence: str
    command: str


def what_would_settle(chosen: str, pairs: Sequence[Comparison], groups: int, command: str) -> Settling | None:
    """Return what would settle the comparisons of a strategy that are open; None where none is.

    Args:
        chosen: the strategy that is recommended: its comparisons decide what to use.
        pairs: of all strategies.
        groups: of test images, which are counted; as many as images where each stands for itself.
        command: that ran the study.
    """
    own = [one for pair in pairs for one in (pair, pair.reversed()) if one.strategy == chosen]
    open_ = [pair for pair in own if pair.relation == "undecided" and pair.difference.spread.total > 0]
    if not open_:
        return None
    asked = [(_seeds(pair, len(pairs)), pair) for pair in open_]
    seeds, hardest = max(asked, key=lambda one: float("inf") if one[0] is None else one[0])
    images = None
    if seeds is None:
        times = max(_images(pair, len(pairs)) or float("inf") for count, pair in asked if count is None)
        images = None if times == float("inf") else round(groups * times)
    if hardest.difference.seeds == 1:
        seeds = FEWEST_SEEDS
    return Settling(
        hardest.strategy,
        hardest.other,
        seeds,
        images,
        _sentence(chosen, [pair for _, pair in asked], seeds, images, groups),
        with_option(command, "--seeds", str(seeds)) if seeds else "",
    )


def _seeds(pair: Comparison, family: int) -> int | None:
    """Return the fewest seeds that settle a comparison, as long as its difference stays as it is."""
    now = pair.difference.seeds
    if now == 1:
        return None
    return _fewest(pair, family, pair.difference.spread.with_seeds, now + 1, MOST_SEEDS)


def _images(pair: Comparison, family: int) -> int | None:
    """Return how many times the test images settle it."""
    return _fewest(pair, family, pair.difference.spread.with_images, 2, MOST_IMAGES)


def _fewest(
    pair: Comparison, family: int, with_more: Callable[[int], Spread], low: int, high: int
) -> int | None:
    """Return the lowest number of something, of which more is better, that settles a comparison."""

    def enough(count: int) -> bool:
        levels = (ALPHA / family, ALPHA)
        return settles(pair.difference.value, with_more(count), pair.margin, levels)

    if low > high or not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _sentence(
    chosen: str, open_: Sequence[Comparison], seeds: int | None, images: int | None, groups: int
) -> str:
    opening = f"Open: how {chosen} differs from {listed([pair.other for pair in open_])}."
    if open_[0].difference.seeds == 1:
        return f"{opening} A single seed does not show how much seeds differ: run {seeds}."
    if seeds:
        return f"{opening} If differences stay as they are, about {seeds} seeds would settle it."
    if images:
        return (
            f"{opening} More seeds alone would not settle it: it takes about {images:,} test images, and not "
            f"{groups:,}, if differences stay as they are."
        )
    return f"{opening} That is too close to the smallest difference that matters for more runs to settle it."
