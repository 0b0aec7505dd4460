"""The one table of a study's results, as plain text: for the terminal, the page and the Markdown."""

from collections.abc import Sequence

from bench.analysis import Result, Summary
from bench.analysis.evidence import canonical

NOTHING = "\N{EN DASH}"
PLACES = {"best": "best", "tied": "tied with best", "behind": "behind", "ahead": "ahead on test"}


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return the column headers and a row of cells per strategy, in canonical order."""
    headers = [
        "Strategy",
        f"Test {summary.metric.replace('_', ' ')} [95 %]",
        "Run (s)",
        "Tuning (s)",
        "Trials",
        "Trainable",
        "Verdict",
    ]
    return headers, [_row(result) for result in summary.results]


def _row(result: Result) -> list[str]:
    return [
        result.strategy,
        score(result),
        seconds(result.train_seconds),
        seconds(result.tuning_seconds) if sum(result.trials.values()) else NOTHING,
        _trials(result),
        NOTHING if result.trainable_parameters is None else f"{result.trainable_parameters:,}",
        verdict(result),
    ]


def score(result: Result) -> str:
    """Return mean and interval: `0.863 [0.841, 0.882]`."""
    if result.test:
        return f"{result.test.value:.3f} [{result.test.low:.3f}, {result.test.high:.3f}]"
    return NOTHING if result.test_mean is None else f"{result.test_mean:.3f} [unknown]"


def seconds(value: float | None) -> str:
    """Return seconds to a sensible precision: `3.4`, `25`, `1,240`."""
    if value is None:
        return NOTHING
    return short if len(short := f"{value:.1f}") <= len("9.9") else f"{value:,.0f}"


def _trials(result: Result) -> str:
    lost = [
        f"{result.trials[status]} {status}" for status in ("pruned", "failed") if result.trials.get(status)
    ]
    total = sum(result.trials.values())
    return f"{total} ({', '.join(lost)})" if lost else str(total)


def verdict(result: Result) -> str:
    """Return the strategy's place, and how many of its runs are lacking."""
    lost = [f"{result.failed} failed"] * bool(result.failed) + [f"{result.missing} not run"] * bool(
        result.missing
    )
    place = PLACES.get(result.place, result.place)
    return f"{place} ({', '.join(lost)})" if lost else place


def overview(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Return a table of strategies by studies: test metric with interval, and the place unless behind."""
    names = canonical(result.strategy for summary in summaries for result in summary.results)
    rows = []
    for name in names:
        found = [next((r for r in summary.results if r.strategy == name), None) for summary in summaries]
        rows.append([name, *(_cell(result) for result in found)])
    return ["Strategy", *(summary.study for summary in summaries)], rows


def _cell(result: Result | None) -> str:
    if result is None:
        return NOTHING
    return f"{score(result)} {result.place}" if result.place in {"best", "tied", "ahead"} else score(result)
