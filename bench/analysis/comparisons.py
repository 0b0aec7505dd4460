"""Which strategies differ: paired differences of all pairs, corrected; effect sizes, groups and power."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special, stats

from bench.analysis.variance import LEVEL, Crossed, Difference

ALPHA = 1 - LEVEL
POWER = 0.8

Relation = Literal["tied", "behind", "ahead"]


@dataclass(frozen=True)
class Comparison:
    """A strategy against another, paired by seed and test image: `strategy` minus `other`.

    Args:
        place: whether the strategy is ahead, behind, or tied: not distinguishable.
        p_holm: two-sided, corrected for the pairs of its family (Holm 1979).
        effect: Cohen's h of the two means: 0.2 is small, 0.5 medium, 0.8 large (Cohen 1988, chapter 6). None
            where they are no shares of independent predictions: IoU, and the pixels of an image.
        seeds_ahead, seeds_behind: paired seeds in which the strategy is ahead, is behind.
        critical_difference: from which on the two are told apart, given what the other pairs show: where p
            is what Holm's procedure asks of this pair. None: none would, a single image decides nothing.
        minimum_detectable_effect: the smallest true difference that a study with this spread tells apart with
            power 0.8; None if there is none below 1, or no spread was seen.
    """

    strategy: str
    other: str
    place: Relation
    difference: Difference
    p_holm: float
    effect: float | None
    seeds_ahead: int
    seeds_behind: int
    critical_difference: float | None
    minimum_detectable_effect: float | None

    def reversed(self) -> "Comparison":
        """Return the same with the sides swapped."""
        d = self.difference
        places: dict[Relation, Relation] = {"behind": "ahead", "ahead": "behind", "tied": "tied"}
        return replace(
            self,
            strategy=self.other,
            other=self.strategy,
            place=places[self.place],
            difference=replace(d, value=0.0 - d.value, low=0.0 - d.high, high=0.0 - d.low),
            effect=None if self.effect is None else 0.0 - self.effect,
            seeds_ahead=self.seeds_behind,
            seeds_behind=self.seeds_ahead,
        )

    @property
    def words(self) -> str:
        """The difference in words: `is behind full by 0.021 [0.004, 0.038], p = 0.012`."""
        d, p = self.difference, p_words(self.p_holm)
        if self.place == "tied":
            interval = f"[{signed(d.low)}, {signed(d.high)}]"
            return f"can't be told apart from {self.other} (difference {signed(d.value)} {interval}, {p})"
        low, high = sorted((d.low, d.high)) if d.value >= 0 else sorted((-d.low, -d.high))
        where = f"{self.place} {'of ' if self.place == 'ahead' else ''}{self.other}"
        return f"is {where} by {abs(d.value):.3f} [{number(low)}, {number(high)}], {p}"


def signed(value: float) -> str:
    """Return a difference with its sign and three decimals, with a real minus; zero has none."""
    text = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return text if float(f"{value:.3f}") else "0.000"


def number(value: float) -> str:
    """Return three decimals, with a real minus."""
    return signed(value).removeprefix("+")


def p_words(p: float) -> str:
    """Return a p-value in words: `p = 0.012`, `p < 0.001`."""
    return f"p = {p:.3f}".replace("= 0.000", "< 0.001")


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given (Holm 1979, Scand. J. Stat. 6)."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def compare_all(
    rows: Mapping[str, Mapping[int, int]], crossed: Crossed, best: str | None
) -> tuple[Comparison, ...]:
    """Compare every pair of strategies on the seeds that both have.

    There are two families, each corrected by itself: the pairs with the best, which carry the verdict, and
    the pairs among the others.

    Args:
        rows: strategy to seed to row of `crossed`. A pair without a common seed is left out.
        crossed: the scores of all runs.
        best: the best strategy, chosen without test.
    """
    shared = {pair: sorted(set(rows[pair[0]]) & set(rows[pair[1]])) for pair in combinations(rows, 2)}
    families = (
        {pair: seeds for pair, seeds in shared.items() if seeds and (best in pair) is with_best}
        for with_best in (True, False)
    )
    found = {(c.strategy, c.other): c for family in families for c in _compare(family, rows, crossed)}
    return tuple(found[pair] for pair in shared if pair in found)


def _compare(
    family: Mapping[tuple[str, str], list[int]], rows: Mapping[str, Mapping[int, int]], crossed: Crossed
) -> Iterator[Comparison]:
    sides = {
        pair: ([rows[pair[0]][s] for s in seeds], [rows[pair[1]][s] for s in seeds])
        for pair, seeds in family.items()
    }
    differences = {pair: crossed.difference(*side) for pair, side in sides.items()}
    adjusted = holm([difference.p for difference in differences.values()])
    told = sorted(differences[pair].p for pair, p in zip(differences, adjusted, strict=True) if p < ALPHA)
    for (pair, difference), p in zip(differences.items(), adjusted, strict=True):
        step = told.index(difference.p) if p < ALPHA else len(told)
        alphas = (ALPHA / (len(family) - step), ALPHA / len(family))
        yield _comparison(pair, sides[pair], difference, p, alphas, crossed)


def _comparison(
    pair: tuple[str, str],
    sides: tuple[list[int], list[int]],
    difference: Difference,
    p: float,
    alphas: tuple[float, float],
    crossed: Crossed,
) -> Comparison:
    """Return a comparison; `alphas`: what Holm's procedure asks of it, and what it asks at most."""
    one, other = (crossed.values[side] for side in sides)
    ahead = crossed.sign * (one - other)
    return Comparison(
        *pair,
        place="tied" if p >= ALPHA else "behind" if crossed.sign * difference.value < 0 else "ahead",
        difference=difference,
        p_holm=p,
        effect=_cohens_h(one, other) if crossed.proportions else None,
        seeds_ahead=int((ahead > 0).sum()),
        seeds_behind=int((ahead < 0).sum()),
        critical_difference=critical_value(
            difference, alphas[0], crossed.images if crossed.proportions else None
        ),
        minimum_detectable_effect=minimum_detectable_effect(difference, alphas[1]),
    )


def _cohens_h(one: np.ndarray, other: np.ndarray) -> float:
    from statsmodels.stats.proportion import proportion_effectsize

    return float(proportion_effectsize(*(min(1.0, max(0.0, float(side.mean()))) for side in (one, other))))


def critical_value(difference: Difference, alpha: float, images: int | None) -> float | None:
    """Return the size of a difference with this spread whose two-sided p-value is alpha.

    None where it is above 1, and where there is neither a spread nor a number of images, each right or wrong.
    """
    if difference.degrees is not None:
        size = float(stats.t.isf(alpha / 2, difference.degrees)) * difference.error
    else:  # no image differs: the exact bound on how many might
        size = 1 - (alpha / 2) ** (1 / images) if images and images > 1 else 2.0
    return size if size < 1 else None


def minimum_detectable_effect(difference: Difference, alpha: float, power: float = POWER) -> float | None:
    """Return the true difference that a two-sided test at alpha finds with this power; None: there is none.

    A retrospective minimum: the spread is the one that was seen (noncentral t; Cohen 1988, chapter 2).
    """
    if difference.degrees is None:
        return None
    bound = stats.t.isf(alpha / 2, difference.degrees)
    size = float(special.nctdtrinc(difference.degrees, 1 - power, bound)) * difference.error
    return size if size < 1 else None


def group(strategies: Sequence[str], comparisons: Iterable[Comparison]) -> tuple[tuple[str, ...], ...]:
    """Return the largest sets of strategies no two of which can be told apart, in the order given.

    Strategies that share a set are those that would share a letter in a compact letter display (Piepho 2004).
    """
    apart = {frozenset((c.strategy, c.other)) for c in comparisons if c.place != "tied"}
    linked: list[set[str]] = []
    for name in strategies:  # by the cliques of what came before: each is kept, extended, or both
        near = {other for other in strategies if frozenset((name, other)) not in apart}
        linked += [(clique & near) | {name} for clique in linked] + [{name}]
        linked = _largest(linked)
    ordered = [tuple(name for name in strategies if name in clique) for clique in linked]
    return tuple(sorted(ordered, key=lambda names: [strategies.index(name) for name in names]))


def _largest(sets: Collection[set[str]]) -> list[set[str]]:
    distinct = [set(names) for names in {frozenset(names) for names in sets}]
    return [names for names in distinct if not any(names < other for other in distinct)]


def letters(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return each strategy's letters, one for each of its groups: who share none differ."""
    found: dict[str, str] = {}
    for place, names in enumerate(groups):
        for name in names:
            found[name] = found.get(name, "") + _letter(place)
    return found


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"({place + 1})"
