"""Seeds where they decide: after some seeds, which comparisons are settled, and which strategies need more.

Where a study has `seeds: {min, max}`, its comparisons are looked at after min seeds, after twice as many, and
so on. A pair that is settled at a look stays so. The chance of 5 % of a false alarm is spent in proportion to
the seeds (the linear member of the power family of Kim and DeMets 1987, Biometrika 74), each look has what
is spent between the last one and it, and these add up whatever looks have in common (Bonferroni): the test
images are the same at all of them, so nothing is known about independent increments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from bench.analysis.comparisons import ALPHA, Comparison, compare_all
from bench.analysis.evidence import Evidence
from bench.analysis.predictions.base import read
from bench.analysis.results import by_validation
from bench.analysis.spread import Spread
from bench.analysis.statistics import measured
from bench.analysis.variance import Crossed, Difference
from bench.study.metrics import METRICS

Rows = Mapping[str, Mapping[int, int]]


def shares(looks: Sequence[int]) -> tuple[float, ...]:
    """Return the share of the chance of a false alarm that each look has; together they are 1.

    Args:
        looks: numbers of seeds, rising.
    """
    return tuple((now - before) / looks[-1] for before, now in pairwise((0, *looks)))


def compare_in_looks(
    rows: Rows, crossed: Crossed, margin: float, looks: Sequence[int]
) -> tuple[Comparison, ...]:
    """Compare every pair of strategies: as it was at the look that settled it, else as it is at the last.

    Args:
        rows: strategy to seed to row of `crossed`, as far as they are.
        crossed: the scores of all runs.
        margin: the smallest difference that matters.
        looks: numbers of seeds, rising.
    """
    found: dict[tuple[str, str], Comparison] = {}
    for look, share in zip(looks, shares(looks), strict=True):
        for comparison in compare_all(_first(rows, look), crossed, margin, share):
            pair = comparison.strategy, comparison.other
            before = found.get(pair, comparison)
            if before.relation == "undecided" and comparison.difference.seeds > before.difference.seeds:
                found[pair] = comparison
            found.setdefault(pair, comparison)
    return tuple(found.values())


def _first(rows: Rows, look: int) -> dict[str, dict[int, int]]:
    """Return the rows of the first seeds."""
    return {name: {seed: row for seed, row in own.items() if seed <= look} for name, own in rows.items()}


def wanted_seeds(evidence: Evidence) -> dict[str, int]:
    """Return how many seeds each strategy of a study needs, as far as that is known.

    It is known as soon as all that is needed up to a look is there. Then those strategies go on whose
    comparison with the best by validation is open, and not futile, and the best itself.
    """
    study, looks = evidence.study, evidence.study.looks
    wanted, going = dict.fromkeys(study.strategies, looks[0]), set(study.strategies)
    for look, following in pairwise(looks):
        ran = evidence.runs[evidence.runs["seed"] <= look].groupby("strategy")["seed"].nunique()
        if any(ran.get(name, 0) < look for name in going):
            break
        going = _going_on(evidence, look)
        if not going:
            break
        wanted |= dict.fromkeys(going, following)
    return wanted


def _going_on(evidence: Evidence, look: int) -> set[str]:
    """Return the strategies that need more seeds than those of a look."""
    runs, known = (table[table["seed"] <= look] for table in (evidence.runs, evidence.predictions))
    seen, looks = replace(evidence, runs=runs, predictions=known), evidence.study.looks
    predictions, order = read(seen), by_validation(seen)
    rows = predictions.by_strategy(seen.strategies)
    if not predictions.correct.size or not order or order[0] not in rows:
        return set()
    crossed = measured(METRICS[evidence.study.metric], predictions, evidence.overlap)
    if not crossed.decides:
        return set()
    margin = evidence.study.smallest_effect
    pairs = [
        {c.strategy, c.other}
        for c in compare_in_looks(rows, crossed, margin, looks)
        if c.relation == "undecided" and not is_futile(c.difference, margin, looks)
    ]
    return {name for pair in pairs if order[0] in pair for name in pair}


def is_futile(difference: Difference, margin: float, looks: Sequence[int]) -> bool:
    """Say whether a pair would be undecided with the most seeds too, if the difference stayed as it is.

    The variance between seeds shrinks with their number, that of the test images does not.
    """
    level = ALPHA * shares(looks)[-1]
    return not settles(difference.value, difference.spread.with_seeds(looks[-1]), margin, (level, level))


def settles(value: float, spread: Spread, margin: float, levels: tuple[float, float]) -> bool:
    """Say whether a difference with a spread is told from zero, or shown to be smaller than the margin.

    Args:
        value: the difference.
        spread: its spread.
        margin: the smallest difference that matters.
        levels: of the two-sided test for the one, and of the one-sided tests for the other.
    """
    told = abs(value) > spread.quantile(levels[0] / 2)
    return told or abs(value) + spread.quantile(levels[1]) < margin
