"""Which strategy to use: the cheapest of those that nothing is shown to be better than."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.comparisons import Comparison
from bench.analysis.results import Result
from bench.core.text import listed

TWICE = 1.95  # rounds to 2.0; from here on a ratio is said as a whole number or with one decimal
FASTER = 1.2  # less than this is no reason: seconds differ by as much from one time to the next


@dataclass(frozen=True)
class Recommendation:
    """What to use, and why.

    Args:
        strategy: the cheapest that is not shown to be worse than the best, nor than any other: by trainable
            parameters, then by seconds of tuning and a run.
        reason: in plain words, as they follow on "Use `strategy`: ".
        sentence: both together, without markup.
    """

    strategy: str
    reason: str
    sentence: str


def recommend(
    results: Sequence[Result], best: str | None, pairs: Sequence[Comparison]
) -> Recommendation | None:
    """Return what to use; None where nothing could be compared, or the test images allow no verdict."""
    if best is None or not any(pair.p_adjusted is not None for pair in pairs):
        return None
    either_way = [one for pair in pairs for one in (pair, pair.reversed())]
    worse = {pair.strategy for pair in either_way if pair.relation == "worse"}
    compared = {best} | {pair.strategy for pair in either_way if pair.other == best}
    known = {result.strategy: result for result in results if result.strategy in compared}
    chosen = min((r for r in known.values() if r.strategy not in worse), key=_cost, default=None)
    if chosen is None:
        return None
    own = [pair for pair in either_way if pair.strategy == chosen.strategy]
    reason = f"{_standing(own)}{_because(chosen, known, best, worse)}"
    return Recommendation(chosen.strategy, reason, f"Use {chosen.strategy}: {reason}.")


def _cost(result: Result) -> tuple[float, float]:
    """Return what a strategy is ranked by; what is unknown comes last."""
    of = (result.trainable_parameters, result.seconds)
    parameters, seconds = (float("inf") if value is None else float(value) for value in of)
    return parameters, seconds


def _standing(pairs: Sequence[Comparison]) -> str:
    """Return how surely nothing is better, from a strategy's comparisons with all others."""
    if all(pair.relation == "better" for pair in pairs):
        return "it is better than all else that was measured"
    if all(pair.relation == "better" or pair.not_worse for pair in pairs):
        return f"nothing measured is better by {pairs[0].margin:g} or more"
    behind = [pair for pair in pairs if _is_behind(pair) and abs(pair.difference.value) >= pair.margin]
    if not behind:
        return "nothing measured is shown to be better"
    most = max(behind, key=lambda pair: abs(pair.difference.value))
    ahead = f"{most.other} is ahead by {abs(most.difference.value):.3f}"
    return f"nothing measured is shown to be better, though {ahead}, which may be chance"


def _is_behind(pair: Comparison) -> bool:
    return None not in (pair.p_worse, pair.p_better) and (pair.p_worse or 0) > (pair.p_better or 0)


def _because(chosen: Result, known: dict[str, Result], best: str, worse: set[str]) -> str:
    """Return what else speaks for it: that what is cheaper is worse, or what it saves."""
    cheaper = [other.strategy for other in known.values() if _cost(other) < _cost(chosen)]
    if cheaper:
        return f", and {listed(cheaper)}, which would be cheaper, {_be(cheaper)} shown to be worse"
    others = [result for result in known.values() if result is not chosen]
    rivals = [result for result in others if result.strategy not in worse] or others
    rival = known[best] if chosen.strategy != best else max(rivals, key=_cost)
    saved = _savings(chosen, rival)
    if not saved:
        return ", and nothing is cheaper"
    named = f"{best}, the best by validation" if rival.strategy == best else rival.strategy
    return f". Compared with {named}, it {listed(saved)}"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _savings(chosen: Result, rival: Result) -> list[str]:
    few, many = chosen.trainable_parameters, rival.trainable_parameters
    saved = []
    if few and many and few < many:
        times = f"{many / few:,.0f} times fewer" if many >= TWICE * few else "fewer"
        saved.append(f"trains {times} parameters ({few:,} instead of {many:,})")
    if chosen.seconds and rival.seconds and rival.seconds >= FASTER * chosen.seconds:
        saved.append(f"is {_times(rival.seconds / chosen.seconds)} as fast, tuning included")
    return saved


def _times(ratio: float) -> str:
    if TWICE <= ratio < 2.5:
        return "twice"
    return f"{ratio:,.0f} times" if ratio >= TWICE else f"{ratio:.1f} times"
