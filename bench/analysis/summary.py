"""From evidence to a summary: results, comparisons with the best, the ruling, and the verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from bench.analysis.comparisons import (
    POWER,
    Comparison,
    compare_all,
    group,
    letters,
)
from bench.analysis.errors_by_class import (
    ClassResult,
    Confused,
    by_class,
    confused,
)
from bench.analysis.evidence import (
    Answers,
    Evidence,
    answers,
    tuning_seconds,
)
from bench.analysis.rules_of_thumb import Place, Ruling, judge
from bench.analysis.variance import (
    DRAWS,
    Crossed,
    CrossedRatios,
    Estimate,
)
from bench.study.metrics import METRICS
from bench.study.schema import Study

FROZEN = "feature_extractor"
NEVER_FOUND = 0.005  # IoU below which a class is as good as never predicted


@dataclass(frozen=True)
class Result:
    """What one strategy reached and what it cost. None: no run is done, or nothing is stored.

    Args:
        done, failed, missing: final runs; together the study's seeds.
        test: mean test metric over seeds with its interval.
        test_mean, val_mean: the same mean, and the one that selects, from the runs' own metrics.
        letters: of its groups: strategies that share none are told apart; empty without a result.
        train_seconds, eval_seconds: mean of a final run, with what it spent on frozen features.
        cached_seconds, uncached_seconds: mean of training and evaluation of a final run that finds its frozen
            features, and of one that has to compute them; the same where nothing is frozen.
        tuning_seconds: training and evaluation of all trials, with frozen features computed once.
        trials: number of trials by status.
        errors: distinct reasons of failed runs.
    """

    strategy: str
    place: Place
    letters: str
    done: int
    failed: int
    missing: int
    test: Estimate | None
    test_mean: float | None
    val_mean: float | None
    train_seconds: float | None
    eval_seconds: float | None
    cached_seconds: float | None
    uncached_seconds: float | None
    tuning_seconds: float
    trials: Mapping[str, int]
    trainable_parameters: int | None
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """All that the report says, as data.

    Args:
        best: the best strategy by mean validation metric; test does not choose. None: no run is done.
        level: the strategies that are not behind the best, itself included.
        comparisons: of each other strategy with the best, strategy minus best.
        pairs: of all strategies with each other, in canonical order.
        groups: the largest sets of strategies no two of which can be told apart, best mean first.
        verdict: who won, how sure, in plain words.
        notes: what limits the verdict: failures, missing runs, a single seed.
        gain_over: what the best is set against by class; None if there is nothing.
        confused: the pairs of classes that the best confuses most.
        data_digest: of the images and labels; the same is the same data set. Empty: unknown.
    """

    study: str
    question: str
    metric: str
    images: int
    results: tuple[Result, ...]
    best: str | None
    level: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    groups: tuple[tuple[str, ...], ...]
    ruling: Ruling | None
    verdict: str
    notes: tuple[str, ...]
    classes: tuple[ClassResult, ...]
    gain_over: str | None
    confused: tuple[Confused, ...]
    data_digest: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Summary":
        """Return the summary that `as_json` gave; other keys are passed over."""
        names = {field.name for field in fields(cls)}
        return TypeAdapter(cls).validate_python({k: v for k, v in values.items() if k in names})

    def result(self, strategy: str) -> Result:
        """Return a strategy's result."""
        return next(result for result in self.results if result.strategy == strategy)

    @property
    def groups_in_words(self) -> str:
        """Which strategies can't be told apart, and which can from all others; empty without a comparison."""
        together = "; ".join(", ".join(names) for names in self.groups if len(names) > 1)
        alone = ", ".join(names[0] for names in self.groups if len(names) == 1)
        sentences = [f"Groups whose members can't be told apart: {together}."] * bool(together)
        return " ".join([*sentences, *[f"Told apart from all others: {alone}."] * bool(alone)])


def summarise(evidence: Evidence, draws: int = DRAWS, seed: int = 0) -> Summary:
    """Return what the evidence says. The same evidence, draws and seed give the same summary."""
    found = answers(evidence)
    crossed = _crossed(found, evidence.study, draws, seed) if found.rows else None
    best = _best(evidence)
    rows = _rows(found, evidence.strategies)
    pairs = compare_all(rows, crossed, best) if crossed else ()
    comparisons = tuple(
        pair if pair.other == best else pair.reversed()
        for pair in pairs
        if best in {pair.strategy, pair.other}
    )
    places: dict[str, Place] = dict.fromkeys(evidence.strategies, "not compared")
    places |= {name: "no result" for name in places if name not in set(evidence.done["strategy"])}
    places |= {comparison.strategy: comparison.place for comparison in comparisons}
    if best:
        places[best] = "best"
    results = tuple(_result(evidence, rows, crossed, name, place) for name, place in places.items())
    ranked = sorted(
        rows, key=lambda name: -next(r.test.value for r in results if r.strategy == name and r.test)
    )
    groups = group(ranked, pairs)
    lettered = letters(groups)
    results = tuple(replace(result, letters=lettered.get(result.strategy, "")) for result in results)
    scenario = evidence.study.scenario
    against = _set_against(evidence, best)
    classes = by_class(found, rows, best, against)
    return Summary(
        study=evidence.study.name,
        question=evidence.study.question,
        metric=evidence.study.metric,
        images=crossed.images if crossed else 0,
        results=results,
        best=best,
        level=tuple(name for name, place in places.items() if place in {"best", "tied", "ahead"}),
        comparisons=comparisons,
        pairs=pairs,
        groups=groups,
        ruling=judge(scenario, places, {c.strategy: c for c in comparisons}) if scenario else None,
        verdict=_verdict(results, comparisons, evidence.study, crossed.images if crossed else 0),
        notes=(
            *_notes(evidence, found, results),
            *(_never_found(classes, evidence.study) if found.pixels else ()),
            *_sensitivity(comparisons),
        ),
        classes=classes,
        gain_over=against,
        confused=confused(evidence, best),
        data_digest=str(evidence.provenance.get("data digest", "")),
    )


def _crossed(found: Answers, study: Study, draws: int, seed: int) -> Crossed:
    if found.pixels and study.metric == "mean_iou":
        return CrossedRatios(found.pixels.intersection, found.pixels.union, found.pixels.truth, draws, seed)
    if found.pixels:
        hits, truth = (
            found.pixels.intersection.sum(2, keepdims=True),
            found.pixels.truth.sum(1, keepdims=True),
        )
        return CrossedRatios(hits, np.broadcast_to(truth, hits.shape), truth, draws, seed)
    balanced = study.metric == "balanced_accuracy"
    strata = (
        np.unique(found.targets, return_inverse=True)[1] if balanced else np.zeros(len(found.targets), int)
    )
    return Crossed(found.correct, strata, draws, seed)


def _best(evidence: Evidence, without: str = "") -> str | None:
    """Return the best strategy by mean validation metric; of equal ones the first in canonical order."""
    means = evidence.done.groupby("strategy")[f"val_{evidence.study.metric}"].mean().dropna().to_dict()
    return max(
        (name for name in evidence.strategies if name in means and name != without),
        key=lambda name: means[name],
        default=None,
    )


def _rows(found: Answers, strategies: Sequence[str]) -> dict[str, dict[int, int]]:
    """Return strategy to seed to row of the answers, for the strategies that have any."""
    rows: dict[str, dict[int, int]] = {}
    for (name, seed), row in found.rows.items():
        rows.setdefault(name, {})[seed] = row
    return {name: rows[name] for name in strategies if name in rows}


def _result(
    evidence: Evidence,
    rows: Mapping[str, Mapping[int, int]],
    crossed: Crossed | None,
    name: str,
    place: Place,
) -> Result:
    runs = evidence.runs[evidence.runs["strategy"] == name]
    done = evidence.done[evidence.done["strategy"] == name]
    trials = evidence.trials[evidence.trials["strategy"] == name]
    cached, uncached = _costs(done)
    parameters = _mean(done["trainable_parameters"])
    return Result(
        strategy=name,
        place=place,
        letters="",
        done=len(done),
        failed=len(runs) - len(done),
        missing=max(0, evidence.study.seeds - len(runs)),
        test=crossed.estimate(list(rows[name].values())) if crossed and name in rows else None,
        test_mean=_mean(done[f"test_{evidence.study.metric}"]),
        val_mean=_mean(done[f"val_{evidence.study.metric}"]),
        train_seconds=_mean(done["train_seconds"]),
        eval_seconds=_mean(done["eval_seconds"]),
        cached_seconds=cached,
        uncached_seconds=uncached,
        tuning_seconds=float(tuning_seconds(trials).sum()),
        trials={s: int((trials["status"] == s).sum()) for s in ("done", "pruned", "failed")},
        trainable_parameters=None if parameters is None else round(parameters),
        errors=tuple(sorted(set(runs.loc[runs["status"] == "failed", "error"].dropna().astype(str)))),
    )


def _costs(done: pd.DataFrame) -> tuple[float | None, float | None]:
    """Return the mean seconds of a run with its frozen features at hand, and without."""
    spent = done["train_seconds"].astype(float) + done["eval_seconds"].astype(float)
    cached = done["cached_seconds"].astype(float).fillna(spent)  # runs of before it was kept
    return _mean(cached), _mean(cached + done["feature_seconds"].astype(float).fillna(0.0))


def _mean(values: "pd.Series[Any]") -> float | None:
    mean = float(values.astype(float).mean()) if len(values) else float("nan")
    return None if np.isnan(mean) else mean


def _verdict(results: Sequence[Result], comparisons: Sequence[Comparison], study: Study, images: int) -> str:
    best = next((result for result in results if result.place == "best"), None)
    if best is None:
        return "No final run is done, so there is nothing to compare."
    name, metric, test = best.strategy, METRICS[study.metric].label, best.test
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
    return (*notes, *_leaks(evidence, found))


def _leaks(evidence: Evidence, found: Answers) -> tuple[str, ...]:
    """Say how many images have a near-duplicate in an earlier part, and what the best has without them."""
    if not evidence.near_duplicates:
        return ()
    near = {image for image, part, *_ in evidence.near_duplicates if part == "test"}
    apart = np.array([image not in near for image in found.images], dtype=bool)
    best = _best(evidence)
    rows = [row for (name, _), row in found.rows.items() if name == best]
    without = ""
    if rows and apart.any() and not apart.all() and evidence.study.metric == "accuracy":
        means = found.correct[rows].mean(), found.correct[rows][:, apart].mean()
        without = f" On the other test images {best} has {means[1]:.3f} instead of {means[0]:.3f}."
    return (f"Near-duplicates: {evidence.provenance['near-duplicates across parts']}.{without}",)


def _never_found(classes: Sequence[ClassResult], study: Study) -> tuple[str, ...]:
    """Name the classes of masks that no strategy ever finds: an average hides them."""
    lost = [c.name for c in classes if c.recall and max(c.recall.values()) < NEVER_FOUND]
    counted = f" They count in the mean of all {len(classes)}." if study.metric == "mean_iou" else ""
    return (f"Found by no strategy (IoU below {NEVER_FOUND:g}): {_and(lost)}.{counted}",) if lost else ()


def _sensitivity(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Say how small a difference from the best this study could have seen."""
    sizes = sorted(c.detectable for c in comparisons if c.detectable is not None)
    if not comparisons:
        return ()
    if all(c.difference.degrees is None for c in comparisons):
        return ("No test image was answered differently, so what this study could have seen is unknown.",)
    if not sizes:
        return ("No difference from the best would have been seen with power 0.8 by a study this small.",)
    least, most = f"{sizes[0]:.3f}", f"{sizes[-1]:.3f}"
    spread = least if least == most else f"{least} to {most}, by strategy"
    opening = f"The smallest true difference from the best that this study could have seen (power {POWER:g})"
    return (f"{opening}: {spread}.",)


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


def _set_against(evidence: Evidence, best: str | None) -> str | None:
    """Return what the best is compared with by class: the frozen backbone, or else the runner-up."""
    if best is None:
        return None
    if best != FROZEN and (evidence.done["strategy"] == FROZEN).any():
        return FROZEN
    return _best(evidence, without=best)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
