"""Which strategy to use: the cheapest of those that nothing is shown to be better than."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.comparisons import Comparison
from bench.analysis.results import Result


@dataclass(frozen=True)
class Recommendation:
    """What to use, and why.

    Args:
        strategy: the cheapest that is not shown to be worse than the best, nor than any other: by trainable
            parameters, then by seconds of tuning and a run.
        sentence: in plain words.
    """

    strategy: str
    sentence: str


def recommend(
    results: Sequence[Result], best: str | None, pairs: Sequence[Comparison]
) -> Recommendation | None:
    """Return what to use; None where nothing could be compared, or the test images allow no verdict."""
    if best is None or not any(pair.p_adjusted is not None for pair in pairs):
        return None
    worse = {pair.strategy for pair in pairs if pair.relation == "worse"}
    worse |= {pair.other for pair in pairs if pair.relation == "better"}
    compared = {best} | {
        name for pair in pairs if best in (names := (pair.strategy, pair.other)) for name in names
    }
    known = {result.strategy: result for result in results if result.strategy in compared}
    chosen = min((r for r in known.values() if r.strategy not in worse), key=_cost, default=None)
    if chosen is None:
        return None
    reason = _of_the_best(chosen, known) if chosen.strategy == best else _of_another(chosen, known[best])
    return Recommendation(chosen.strategy, f"Use {chosen.strategy}: {reason}.")


def _cost(result: Result) -> tuple[float, float]:
    """Return what a strategy is ranked by; what is unknown comes last."""
    of = (result.trainable_parameters, result.seconds)
    parameters, seconds = (float("inf") if value is None else float(value) for value in of)
    return parameters, seconds


def _of_the_best(chosen: Result, known: dict[str, Result]) -> str:
    cheaper = [other for other in known.values() if _cost(other) < _cost(chosen)]
    if cheaper:
        return "it is the best by validation, and whatever is cheaper is shown to be worse than another"
    return "it is the best by validation, and nothing is cheaper"


def _of_another(chosen: Result, best: Result) -> str:
    opening = {
        "better": f"it is better on test than {best.strategy}, the best by validation,",
        "equivalent": f"it is equivalent to {best.strategy}, the best by validation,",
    }.get(chosen.place, f"it is not shown to be worse than {best.strategy}, the best by validation,")
    return f"{opening} and {_saving(chosen, best)}"


def _saving(chosen: Result, best: Result) -> str:
    few, many = chosen.trainable_parameters, best.trainable_parameters
    if few and many and few < many:
        times = f"{many / few:,.0f} times fewer" if many >= 2 * few else "fewer"
        return f"trains {times} parameters ({few:,} instead of {many:,})"
    if few == many and chosen.seconds is not None and best.seconds is not None:
        return f"takes {chosen.seconds:,.0f} s instead of {best.seconds:,.0f} s, tuning included"
    return "costs less"
