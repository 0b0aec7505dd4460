"""Which strategies differ: paired differences of all pairs, corrected; effect sizes, groups and power."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import special

from bench.analysis.variance import LEVEL, Crossed, Difference

ALPHA = 1 - LEVEL
POWER = 0.8

Relation = Literal["better", "worse", "equivalent", "undecided"]
# Of a strategy, against the best; a baseline is set against nothing.
Place = Relation | Literal["best", "not compared", "no result", "baseline"]
OPPOSITE: dict[Relation, Relation] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Comparison:
    """A strategy against another, paired by seed and test image: `strategy` minus `other`.

    Args:
        relation: equivalent: the difference is shown to be smaller than the margin; else better or worse: it
            is shown that there is one; else undecided.
        margin: the smallest difference that matters, as the study has it.
        p_adjusted: two-sided: that there is no difference, corrected for all pairs (Shaffer 1986). None: the
            test images are too few groups, and nothing is tested.
        p_worse, p_better: one-sided: that the strategy is worse, is better by the margin or more. None: as
            above.
        effect: Cohen's h of the two means: 0.2 is small, 0.5 medium, 0.8 large (Cohen 1988, chapter 6). None
            where they are no shares of independent predictions: IoU, and the pixels of an image.
        seeds_ahead, seeds_behind: paired seeds in which the strategy is ahead, is behind.
        critical_difference: from which on there is shown to be one, given what the other pairs show: where p
            is what the procedure asks of this pair. None: none would, a single image decides nothing.
        minimum_detectable_effect: the smallest true difference that a study with this spread shows with power
            0.8; None if there is none below 1, or no spread was seen.
    """

    strategy: str
    other: str
    relation: Relation
    margin: float
    difference: Difference
    p_adjusted: float | None
    p_worse: float | None
    p_better: float | None
    effect: float | None
    seeds_ahead: int
    seeds_behind: int
    critical_difference: float | None
    minimum_detectable_effect: float | None

    def reversed(self) -> "Comparison":
        """Return the same with the sides swapped."""
        return replace(
            self,
            strategy=self.other,
            other=self.strategy,
            relation=OPPOSITE.get(self.relation, self.relation),
            difference=self.difference.reversed(),
            p_worse=self.p_better,
            p_better=self.p_worse,
            effect=None if self.effect is None else 0.0 - self.effect,
            seeds_ahead=self.seeds_behind,
            seeds_behind=self.seeds_ahead,
        )

    @property
    def not_worse(self) -> bool:
        """Whether the strategy is shown not to be worse by the margin or more."""
        return self.p_worse is not None and self.p_worse < ALPHA

    @property
    def p_equivalent(self) -> float | None:
        """Of the two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15)."""
        return None if self.p_worse is None or self.p_better is None else max(self.p_worse, self.p_better)

    @property
    def words(self) -> str:
        """The difference in words: `is worse than full by 0.021 [0.004, 0.038], p = 0.012`."""
        d = self.difference
        if self.relation in OPPOSITE:
            low, high = sorted((d.low, d.high)) if d.value >= 0 else sorted((-d.low, -d.high))
            size = f"{abs(d.value):.3f} [{number(low)}, {number(high)}]"
            return f"is {self.relation} than {self.other} by {size}{_p(self.p_adjusted)}"
        measured = f"difference {signed(d.value)} [{signed(d.low)}, {signed(d.high)}]"
        if self.relation == "equivalent":
            within = f"is equivalent to {self.other} within {self.margin:g}"
            return f"{within} ({measured}{_p(self.p_equivalent)})"
        unknown = f"is shown neither to differ from {self.other} nor to be equivalent"
        return f"{unknown} ({measured}{_p(self.p_adjusted)})"


def _p(p: float | None) -> str:
    return "" if p is None else f", {p_words(p)}"


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


def shaffer(p_values: Sequence[float], compared: int) -> list[float]:
    """Return the adjusted p-values of all pairs, in the order given (Shaffer 1986, JASA 81, procedure S1).

    Holm's procedure with fewer true hypotheses: of three strategies, two pairs can't be equal and the third
    not. Where not every pair was compared it is Holm's.

    Args:
        p_values: of the pairs.
        compared: number of strategies.
    """
    order = np.argsort(p_values, kind="stable")
    factors = _true_at_most(len(p_values), compared)
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.array(factors) * np.asarray(p_values)[order]))
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(p) for p in result]


def _true_at_most(pairs: int, compared: int) -> list[int]:
    """Return how many hypotheses can be true at most, when none, one, ... of the pairs are told apart."""
    whole = pairs == compared * (compared - 1) // 2
    return [
        max(count for count in _equal_pairs(compared) if count <= left) if whole else left
        for left in range(pairs, 0, -1)
    ]


@cache
def _equal_pairs(strategies: int) -> frozenset[int]:
    """Return how many pairs can be equal: the strategies fall into sets, within which all are."""
    return frozenset(
        size * (size - 1) // 2 + more
        for size in range(1, strategies + 1)
        for more in _equal_pairs(strategies - size)
    ) or frozenset({0})


def compare_all(
    rows: Mapping[str, Mapping[int, int]], crossed: Crossed, margin: float, share: float = 1.0
) -> tuple[Comparison, ...]:
    """Compare every pair of strategies on the seeds that both have.

    All pairs are one family, whichever strategy is best: so it may be chosen by the same seeds. That there is
    no difference is tested with that correction; that a difference is smaller than the margin, pair by pair.

    Args:
        rows: strategy to seed to row of `crossed`. A pair without a common seed is left out.
        crossed: the scores of all runs.
        margin: the smallest difference that matters.
        share: of the chance of a false alarm, for one of several looks: p-values are divided by it.
    """
    shared = {pair: sorted(set(rows[pair[0]]) & set(rows[pair[1]])) for pair in combinations(rows, 2)}
    sides = {
        pair: ([rows[pair[0]][s] for s in seeds], [rows[pair[1]][s] for s in seeds])
        for pair, seeds in shared.items()
        if seeds
    }
    differences = {pair: crossed.difference(*side, margin).at_a_share(share) for pair, side in sides.items()}
    alphas = _alphas([difference.p for difference in differences.values()], len(rows))
    return tuple(
        _comparison(pair, sides[pair], difference, margin, own.at_a_share(share), crossed)
        for (pair, difference), own in zip(differences.items(), alphas, strict=True)
    )


@dataclass(frozen=True)
class _Asked:
    """What the correction makes of a pair's p, and what it asks of p: of this pair now, and at most."""

    adjusted: float | None
    now: float
    most: float

    def at_a_share(self, share: float) -> "_Asked":
        """Return what is asked of a p that is not divided by its share."""
        return replace(self, now=self.now * share, most=self.most * share)


def _alphas(p_values: Sequence[float | None], compared: int) -> list[_Asked]:
    known = [p for p in p_values if p is not None]
    if len(known) < len(p_values):
        return [_Asked(None, ALPHA / len(p_values), ALPHA / len(p_values)) for _ in p_values]
    adjusted = shaffer(known, compared)
    factors = [*_true_at_most(len(known), compared), 1]
    told = sorted(p for p, corrected in zip(known, adjusted, strict=True) if corrected < ALPHA)
    return [
        _Asked(
            corrected,
            ALPHA / factors[told.index(p) if corrected < ALPHA else len(told)],
            ALPHA / factors[0],
        )
        for p, corrected in zip(known, adjusted, strict=True)
    ]


def _comparison(
    pair: tuple[str, str],
    sides: tuple[list[int], list[int]],
    difference: Difference,
    margin: float,
    asked: _Asked,
    crossed: Crossed,
) -> Comparison:
    one, other = (crossed.values[side] for side in sides)
    sign = crossed.scale.sign
    ahead = sign * (one - other)
    worse, better = (difference.p_below, difference.p_above)[::sign]
    relation: Relation = "undecided"
    if asked.adjusted is None or worse is None or better is None:
        pass  # nothing is tested
    elif max(worse, better) < ALPHA:
        relation = "equivalent"
    elif asked.adjusted < ALPHA:
        relation = "better" if sign * difference.value > 0 else "worse"
    return Comparison(
        *pair,
        relation=relation,
        margin=margin,
        difference=difference,
        p_adjusted=asked.adjusted,
        p_worse=worse,
        p_better=better,
        effect=_cohens_h(one, other) if crossed.scale.shares else None,
        seeds_ahead=int((ahead > 0).sum()),
        seeds_behind=int((ahead < 0).sum()),
        critical_difference=critical_value(difference, asked.now, crossed) if crossed.decides else None,
        minimum_detectable_effect=(
            minimum_detectable_effect(difference, asked.most) if crossed.decides else None
        ),
    )


def _cohens_h(one: np.ndarray, other: np.ndarray) -> float:
    from statsmodels.stats.proportion import proportion_effectsize

    return float(proportion_effectsize(*(min(1.0, max(0.0, float(side.mean()))) for side in (one, other))))


def critical_value(difference: Difference, alpha: float, crossed: Crossed) -> float | None:
    """Return the size of a difference with this spread whose two-sided p-value is alpha.

    None where it is above 1, and where there is neither a spread nor images enough, each right or wrong.
    """
    size = difference.spread.quantile(alpha / 2)
    if not size and crossed.scale.shares and crossed.groups > 1:  # the exact bound on how many might differ
        size = 1 - (alpha / 2) ** (1 / crossed.groups)
    return size if 0 < size < 1 else None


def minimum_detectable_effect(difference: Difference, alpha: float, power: float = POWER) -> float | None:
    """Return the true difference that a two-sided test at alpha finds with this power; None: there is none.

    A retrospective minimum: the spread is the one that was seen (noncentral t, with Satterthwaite's degrees
    of freedom; Cohen 1988, chapter 2).
    """
    spread = difference.spread
    if spread.total <= 0:
        return None
    error = float(np.sqrt(spread.total))
    size = float(special.nctdtrinc(spread.degrees, 1 - power, spread.quantile(alpha / 2) / error)) * error
    return size if size < 1 else None


def group(strategies: Sequence[str], comparisons: Iterable[Comparison]) -> tuple[tuple[str, ...], ...]:
    """Return the largest sets of strategies no two of which are shown to differ, in the order given.

    What is equivalent does not differ. Strategies that share a set are those that would share a letter in a
    compact letter display (Piepho 2004).
    """
    apart = {frozenset((c.strategy, c.other)) for c in comparisons if c.relation in OPPOSITE}
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
