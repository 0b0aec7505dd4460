"""What a study says beforehand will be found, and whether it was: the harness checked by the literature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.analysis.comparisons import Comparison, Relation
from bench.analysis.results import Result
from bench.study.metrics import METRICS
from bench.study.schema import Expected

Outcome = Literal["as expected", "not as expected", "open"]
AHEAD: Mapping[Relation, Outcome] = {
    "better": "as expected",
    "equivalent": "not as expected",
    "worse": "not as expected",
    "undecided": "open",
}


@dataclass(frozen=True)
class Judged:
    """What became of an expectation.

    Args:
        outcome: open: what was measured decides neither way, or was not run.
        sentence: what was measured, and what was expected.
        source: where the expectation is from.
    """

    outcome: Outcome
    sentence: str
    source: str


def judge_expected(
    expected: Sequence[Expected],
    results: Sequence[Result],
    pairs: Mapping[tuple[str, str], Comparison],
    metric: str,
) -> tuple[Judged, ...]:
    """Return what became of each expectation.

    Args:
        expected: by the study.
        results: of its strategies.
        pairs: comparisons of two strategies, by their names, either way round.
        metric: the study's.
    """
    reached = {result.strategy: result for result in results}
    return tuple(
        _of_a_pair(one, pairs.get((one.strategy, one.over)))
        if one.over
        else _of_a_value(one, reached.get(one.strategy), METRICS[metric].label)
        for one in expected
    )


def _of_a_pair(expected: Expected, comparison: Comparison | None) -> Judged:
    """Judge that one strategy is better than another."""
    if comparison is None:
        sentence = f"{expected.strategy} and {expected.over} could not be compared"
        return Judged("open", f"{sentence}; expected to be better: {expected.strategy}.", expected.source)
    sentence = f"{expected.strategy} {comparison.words}; expected to be better: {expected.strategy}."
    return Judged(AHEAD[comparison.relation], sentence, expected.source)


def _of_a_value(expected: Expected, result: Result | None, metric: str) -> Judged:
    """Judge that a strategy reaches a value: it does if the mean is as near as is asked for.

    It does not if all of the interval is farther away.
    """
    assert expected.value is not None
    assert expected.within is not None
    wanted = f"expected: {expected.value:g} \N{PLUS-MINUS SIGN} {expected.within:g}."
    if result is None or result.test is None:
        return Judged("open", f"{expected.strategy} has no result; {wanted}", expected.source)
    test, low, high = result.test, expected.value - expected.within, expected.value + expected.within
    outcome: Outcome = "open"
    if low <= test.value <= high:
        outcome = "as expected"
    elif test.high < low or test.low > high:
        outcome = "not as expected"
    reached = f"{expected.strategy} has test {metric} {test.value:.4f} [{test.low:.4f}, {test.high:.4f}]"
    return Judged(outcome, f"{reached}; {wanted}", expected.source)
