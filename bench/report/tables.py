"""The tables of a report as plain text, for the terminal, the page and the documents; and as numbers."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.analysis.comparisons import Comparison, number, p_words, signed
from bench.analysis.evidence import Evidence, canonical
from bench.analysis.results import Result
from bench.analysis.summary import GOOD, Summary
from bench.study.metrics import METRICS

NOTHING = "\N{EN DASH}"
EFFECT = 4  # where the effect size stands in the table of pairs
PLACES = {"better": "better on test"}


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return the column headers and a row of cells per strategy, the best on test first; then baselines."""
    headers = [
        "Strategy",
        f"Test {METRICS[summary.metric].label} [95 %]",
        "Run (s)",
        "Tuning (s)",
        "Trials",
        "Trainable",
        "Verdict",
    ]
    chosen = summary.recommendation.strategy if summary.recommendation else None
    rows = [_row(result, result.strategy == chosen) for result in summary.ranked]
    return headers, rows + [_row_of_baseline(result) for result in summary.baselines]


def _row(result: Result, recommended: bool) -> list[str]:
    return [
        result.strategy,
        score(result),
        seconds(result.uncached_seconds),
        seconds(result.tuning_seconds) if sum(result.trials.values()) else NOTHING,
        _trials(result),
        NOTHING if result.trainable_parameters is None else f"{result.trainable_parameters:,}",
        verdict(result, recommended),
    ]


def _row_of_baseline(result: Result) -> list[str]:
    cells = [result.strategy, score(result), seconds(result.uncached_seconds)]
    return [*cells, NOTHING, NOTHING, NOTHING, verdict(result, recommended=False)]


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


def verdict(result: Result, recommended: bool) -> str:
    """Return the strategy's place against the best, and what speaks against taking it as it is."""
    doubts = [
        *[f"{result.failed} failed"] * bool(result.failed),
        *[f"{result.missing} not run"] * bool(result.missing),
        *["undertrained"] * (result.undertrained is not None),
    ]
    place = PLACES.get(result.place, result.place) + ", recommended" * recommended
    return f"{place} ({', '.join(doubts)})" if doubts else place


def pairs(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return headers and a row of cells for each pair of strategies."""
    headers = ["Pair", "Difference [95 %]", "p: equal", f"p: by {summary.margin:g} or more"]
    headers += ["Seeds ahead", "Found with power 0.8", "The first is"]
    rows = [_pair(pair) for pair in summary.pairs]
    if has_effects(summary):
        headers.insert(EFFECT, "Cohen's h")
        for row, pair in zip(rows, summary.pairs, strict=True):
            row.insert(EFFECT, NOTHING if pair.effect is None else number(pair.effect))
    return headers, rows


def has_effects(summary: Summary) -> bool:
    """Say whether there is an effect size: Cohen's h is for shares of independent predictions."""
    return any(pair.effect is not None for pair in summary.pairs)


def _pair(pair: Comparison) -> list[str]:
    d = pair.difference
    return [
        f"{pair.strategy} \N{MINUS SIGN} {pair.other}",
        f"{signed(d.value)} [{signed(d.low)}, {signed(d.high)}]",
        p_value(pair.p_adjusted),
        p_value(pair.p_equivalent),
        f"{pair.seeds_ahead} of {d.seeds}",
        NOTHING if pair.minimum_detectable_effect is None else f"{pair.minimum_detectable_effect:.3f}",
        pair.relation,
    ]


def p_value(p: float | None) -> str:
    """Return a p-value without its name: `0.012`, `< 0.001`."""
    return NOTHING if p is None else p_words(p).removeprefix("p ").removeprefix("= ")


def thumb(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Return the table of rules of thumb: a row for each study that has one."""
    headers = [
        "Study",
        "Scenario",
        "Rule of thumb",
        "Advised",
        "Best",
        "Recommended",
        "Outcome",
        "Closest call",
    ]
    rows = [
        [
            summary.study,
            f"{r.size}, {r.similarity}",
            r.advice,
            " or ".join(r.advised) or NOTHING,
            summary.best or NOTHING,
            summary.recommendation.strategy if summary.recommendation else NOTHING,
            r.outcome,
            r.deciding.sentence if r.deciding else NOTHING,
        ]
        for summary in summaries
        if (r := summary.ruling)
    ]
    return headers, rows


def runs(evidence: Evidence) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return headers, and for each final run its MLflow id and its cells."""
    metric = evidence.study.metric
    words = METRICS[metric].label
    headers = ["Strategy", "Seed", "Status", f"Val {words}", f"Test {words}", "Train (s)", "Steps"]
    columns = ["mlflow_run_id", "strategy", "seed", "status", "error"]
    columns += [f"val_{metric}", f"test_{metric}", "train_seconds", "steps"]
    return headers, [
        (
            "" if pd.isna(run_id) else str(run_id),
            [
                str(strategy),
                str(seed),
                f"{status}: {error}" if isinstance(error, str) and error else str(status),
                *(NOTHING if pd.isna(value) else f"{value:.4f}" for value in (val, test)),
                seconds(None if pd.isna(spent) else float(spent)),
                NOTHING if pd.isna(steps) else f"{int(steps):,}",
            ],
        )
        for run_id, strategy, seed, status, error, val, test, spent, steps in zip(
            *(evidence.runs[column] for column in columns), strict=True
        )
    ]


def numbers(summary: Summary) -> dict[str, pd.DataFrame]:
    """Return results, comparisons and classes as numbers, by the name of their table."""
    results = [
        {
            "strategy": r.strategy,
            "place": r.place,
            "letters": r.letters,
            "seeds": r.done,
            "failed": r.failed,
            "missing": r.missing,
            "test": r.test.value if r.test else r.test_mean,
            "low": r.test.low if r.test else None,
            "high": r.test.high if r.test else None,
            "val": r.val_mean,
            "cached_seconds": r.cached_seconds,
            "uncached_seconds": r.uncached_seconds,
            "tuning_seconds": r.tuning_seconds,
            "trainable_parameters": r.trainable_parameters,
        }
        for r in (*summary.results, *summary.baselines)
    ]
    comparisons = [
        {
            "strategy": c.strategy,
            "other": c.other,
            "difference": c.difference.value,
            "low": c.difference.low,
            "high": c.difference.high,
            "p": c.difference.p,
            "p_adjusted": c.p_adjusted,
            "p_equivalent": c.p_equivalent,
            **({"cohens_h": c.effect} if has_effects(summary) else {}),
            "seeds": c.difference.seeds,
            "seeds_ahead": c.seeds_ahead,
            "seeds_behind": c.seeds_behind,
            "critical_difference": c.critical_difference,
            "minimum_detectable_effect": c.minimum_detectable_effect,
            "verdict": c.relation,
        }
        for c in summary.pairs
    ]
    classes = [{"class": c.name, "images": c.images, **c.recall} for c in summary.classes]
    found: dict[str, list[dict[str, Any]]] = {
        "results": results,
        "comparisons": comparisons,
        "classes": classes,
    }
    return {name: pd.DataFrame(rows) for name, rows in found.items() if rows}


def overview(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Return a table of strategies by studies: test metric with interval, and the place unless worse."""
    names = canonical(result.strategy for summary in summaries for result in summary.results)
    rows = []
    for name in names:
        found = [next((r for r in summary.results if r.strategy == name), None) for summary in summaries]
        rows.append([name, *(_cell(result) for result in found)])
    return ["Strategy", *(summary.study for summary in summaries)], rows


def _cell(result: Result | None) -> str:
    if result is None:
        return NOTHING
    return f"{score(result)} {result.place}" if result.place in {"best", *GOOD} else score(result)
