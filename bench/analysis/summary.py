"""From evidence to a summary: results, comparisons with the best, the ruling, and the verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.advice import Place, Ruling, judge
from bench.analysis.bootstrap import DRAWS, LEVEL, Crossed, Difference, Estimate, holm
from bench.analysis.evidence import Answers, Evidence, answers
from bench.study import Study

ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Result:
    """What one strategy reached and what it cost. None: no run is done, or nothing is stored.

    Args:
        done, failed, missing: final runs; together the study's seeds.
        test: mean test metric over seeds with its interval.
        test_mean, val_mean: the same mean, and the one that selects, from the runs' own metrics.
        train_seconds, eval_seconds: mean of a final run.
        tuning_seconds: training and evaluation of all trials.
        trials: number of trials by status.
        errors: distinct reasons of failed runs.
    """

    strategy: str
    place: Place
    done: int
    failed: int
    missing: int
    test: Estimate | None
    test_mean: float | None
    val_mean: float | None
    train_seconds: float | None
    eval_seconds: float | None
    tuning_seconds: float
    trials: Mapping[str, int]
    trainable_parameters: int | None
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A strategy against the best: paired difference (strategy minus best), and its p-value after Holm."""

    strategy: str
    best: str
    place: Place
    difference: Difference
    p_holm: float

    @property
    def words(self) -> str:
        """The difference in words: `is behind full by 0.021 [0.004, 0.038], p = 0.012`."""
        d, p = self.difference, f"p = {self.p_holm:.3f}".replace("= 0.000", "< 0.001")
        if self.place == "tied":
            interval = f"[{signed(d.low)}, {signed(d.high)}]"
            return f"can't be told apart from {self.best} (difference {signed(d.value)} {interval}, {p})"
        low, high = sorted((abs(d.low), abs(d.high)))
        where = f"behind {self.best}" if self.place == "behind" else f"ahead of {self.best}"
        return f"is {where} by {abs(d.value):.3f} [{low:.3f}, {high:.3f}], {p}"


@dataclass(frozen=True)
class ClassResult:
    """Share of a class's test images that each strategy gets right, mean over its seeds."""

    name: str
    images: int
    recall: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """All that the report says, as data.

    Args:
        best: the best strategy by mean validation metric; test does not choose. None: no run is done.
        level: the strategies that can't be told apart from the best, itself included.
        verdict: who won, how sure, in plain words.
        notes: what limits the verdict: failures, missing runs, a single seed.
    """

    study: str
    question: str
    metric: str
    images: int
    results: tuple[Result, ...]
    best: str | None
    level: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    ruling: Ruling | None
    verdict: str
    notes: tuple[str, ...]
    classes: tuple[ClassResult, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON types."""
        return asdict(self)

    def result(self, strategy: str) -> Result:
        """Return a strategy's result."""
        return next(result for result in self.results if result.strategy == strategy)


def signed(value: float) -> str:
    """Return a difference with its sign and three decimals, with a real minus; zero has none."""
    text = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return text if float(f"{value:.3f}") else "0.000"


def summarise(evidence: Evidence, draws: int = DRAWS, seed: int = 0) -> Summary:
    """Return what the evidence says. The same evidence, draws and seed give the same summary."""
    found = answers(evidence)
    crossed = _crossed(found, evidence.study, draws, seed) if found.rows else None
    best = _best(evidence)
    comparisons = _compare(found, crossed, evidence.strategies, best)
    places: dict[str, Place] = dict.fromkeys(evidence.strategies, "not compared")
    places |= {name: "no result" for name in places if name not in set(evidence.done["strategy"])}
    places |= {comparison.strategy: comparison.place for comparison in comparisons}
    if best:
        places[best] = "best"
    results = tuple(_result(evidence, found, crossed, name, place) for name, place in places.items())
    words = {comparison.strategy: comparison.words for comparison in comparisons}
    scenario = evidence.study.scenario
    return Summary(
        study=evidence.study.name,
        question=evidence.study.question,
        metric=evidence.study.metric,
        images=crossed.images if crossed else 0,
        results=results,
        best=best,
        level=tuple(name for name, place in places.items() if place in {"best", "tied", "ahead"}),
        comparisons=comparisons,
        ruling=judge(scenario, places, words) if scenario else None,
        verdict=_verdict(results, comparisons, evidence.study, crossed.images if crossed else 0),
        notes=_notes(evidence, found, results),
        classes=_classes(found),
    )


def _crossed(found: Answers, study: Study, draws: int, seed: int) -> Crossed:
    balanced = study.metric == "balanced_accuracy"
    strata = (
        np.unique(found.targets, return_inverse=True)[1] if balanced else np.zeros(len(found.targets), int)
    )
    return Crossed(found.correct, strata, draws, seed)


def _best(evidence: Evidence) -> str | None:
    """Return the best strategy by mean validation metric; of equal ones the first in canonical order."""
    means = evidence.done.groupby("strategy")[f"val_{evidence.study.metric}"].mean().dropna().to_dict()
    return max(
        (name for name in evidence.strategies if name in means), key=lambda name: means[name], default=None
    )


def _compare(
    found: Answers, crossed: Crossed | None, strategies: Sequence[str], best: str | None
) -> tuple[Comparison, ...]:
    """Compare each strategy with the best on the seeds that both have."""
    if crossed is None or best is None:
        return ()
    seeds = {name: {s for n, s in found.rows if n == name} for name in strategies}
    differences = {
        name: crossed.difference(
            [found.rows[name, s] for s in sorted(shared)], [found.rows[best, s] for s in sorted(shared)]
        )
        for name in strategies
        if name != best and (shared := seeds[name] & seeds[best])
    }
    adjusted = holm([difference.p for difference in differences.values()])
    return tuple(
        Comparison(name, best, _place(difference, p), difference, p)
        for (name, difference), p in zip(differences.items(), adjusted, strict=True)
    )


def _place(difference: Difference, p: float) -> Place:
    if p >= ALPHA:
        return "tied"
    return "behind" if difference.value < 0 else "ahead"


def _result(evidence: Evidence, found: Answers, crossed: Crossed | None, name: str, place: Place) -> Result:
    runs = evidence.runs[evidence.runs["strategy"] == name]
    done = evidence.done[evidence.done["strategy"] == name]
    trials = evidence.trials[evidence.trials["strategy"] == name]
    rows = [row for (strategy, _), row in found.rows.items() if strategy == name]
    parameters = _mean(done["trainable_parameters"])
    return Result(
        strategy=name,
        place=place,
        done=len(done),
        failed=len(runs) - len(done),
        missing=max(0, evidence.study.seeds - len(runs)),
        test=crossed.estimate(rows) if crossed and rows else None,
        test_mean=_mean(done[f"test_{evidence.study.metric}"]),
        val_mean=_mean(done[f"val_{evidence.study.metric}"]),
        train_seconds=_mean(done["train_seconds"]),
        eval_seconds=_mean(done["eval_seconds"]),
        tuning_seconds=float(trials[["train_seconds", "eval_seconds"]].astype(float).sum().sum()),
        trials={s: int((trials["status"] == s).sum()) for s in ("done", "pruned", "failed")},
        trainable_parameters=None if parameters is None else round(parameters),
        errors=tuple(sorted(set(runs.loc[runs["status"] == "failed", "error"].dropna().astype(str)))),
    )


def _mean(values: "pd.Series[Any]") -> float | None:
    mean = float(values.astype(float).mean()) if len(values) else float("nan")
    return None if np.isnan(mean) else mean


def _verdict(results: Sequence[Result], comparisons: Sequence[Comparison], study: Study, images: int) -> str:
    best = next((result for result in results if result.place == "best"), None)
    if best is None:
        return "No final run is done, so there is nothing to compare."
    name, metric, test = best.strategy, study.metric.replace("_", " "), best.test
    if test is None:
        return f"{name} is best by validation; its predictions are not stored, so nothing can be compared."
    opening = (
        f"{name} is best by validation: test {metric} {test.value:.3f} [{test.low:.3f}, {test.high:.3f}] "
        f"({_count(test.seeds, 'seed')}, {_count(images, 'test image')})."
    )
    tied, ahead, behind = (
        [c.strategy for c in comparisons if c.place == place] for place in ("tied", "ahead", "behind")
    )
    closing = [
        f"It can't be told apart from {_and(tied)}." if tied else "",
        f"On test it is beaten by {_and(ahead)}." if ahead else "",
        f"It is ahead of {_and(behind)}." if behind else "",
    ]
    return " ".join([opening, *filter(None, closing)])


def _notes(evidence: Evidence, found: Answers, results: Sequence[Result]) -> tuple[str, ...]:
    """Return what a reader must know before believing the verdict."""
    notes = [_trouble(result) for result in results if result.failed or result.missing]
    if any(result.test and result.test.seeds == 1 for result in results):
        notes.append(
            "A strategy with a single seed: how much seeds differ is unknown, its interval and comparisons "
            "answer for the test images only."
        )
    unknown = evidence.done[[key not in found.rows for key in _keys(evidence.done)]]
    if len(unknown):
        named = ", ".join(f"{strategy} seed {seed}" for strategy, seed in _keys(unknown))
        notes.append(f"Runs without stored predictions, left out of intervals and comparisons: {named}.")
    if found.dropped:
        notes.append(f"{_count(found.dropped, 'test image')} left out: not every run has a prediction.")
    return tuple(notes)


def _keys(runs: pd.DataFrame) -> list[tuple[str, int]]:
    return [(str(strategy), int(seed)) for strategy, seed in zip(runs["strategy"], runs["seed"], strict=True)]


def _trouble(result: Result) -> str:
    total = result.done + result.failed + result.missing
    parts = [
        f"{result.failed} failed" if result.failed else "",
        f"{result.missing} not run" if result.missing else "",
    ]
    reasons = f" ({'; '.join(result.errors)})" if result.errors else ""
    return f"{result.strategy}: of {_count(total, 'final run')} {_and([p for p in parts if p])}{reasons}."


def _classes(found: Answers) -> tuple[ClassResult, ...]:
    strategies = list(dict.fromkeys(strategy for strategy, _ in found.rows))
    rows = {s: [row for (name, _), row in found.rows.items() if name == s] for s in strategies}
    return tuple(
        ClassResult(
            str(target),
            int((chosen := found.targets == target).sum()),
            {s: float(found.correct[np.ix_(rows[s], chosen)].mean()) for s in strategies},
        )
        for target in np.unique(found.targets)
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
