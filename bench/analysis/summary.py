"""From evidence to a summary: results, comparisons with the best, the ruling and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter

from bench.analysis.comparisons import Comparison, compare_all, group, letters
from bench.analysis.errors_by_class import ClassResult, Confused, by_class, confused
from bench.analysis.evidence import Evidence
from bench.analysis.predictions.base import Predictions, read
from bench.analysis.results import Result, best_by_validation, result_of
from bench.analysis.rules_of_thumb import Place, Ruling, judge
from bench.analysis.statistics import resampled
from bench.analysis.training_length import undertrained_in_words
from bench.analysis.variance import DRAWS
from bench.analysis.verdict import never_found, notes_on, sensitivity, verdict
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS

FROZEN = "feature_extractor"


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
    study, task = evidence.study, TASKS[evidence.study.task]
    predictions = read(evidence)
    metric = METRICS[study.metric]
    crossed = resampled(metric, predictions, draws, seed) if predictions.rows else None
    best = best_by_validation(evidence)
    rows = _rows(predictions, evidence.strategies)
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
    results = tuple(result_of(evidence, rows, crossed, name, place) for name, place in places.items())
    ranked = sorted(
        rows,
        key=lambda name: -metric.sign * next(r.test.value for r in results if r.strategy == name and r.test),
    )
    groups = group(ranked, pairs)
    lettered = letters(groups)
    results = tuple(replace(result, letters=lettered.get(result.strategy, "")) for result in results)
    scenario = study.scenario
    against = _set_against(evidence, best)
    classes = by_class(task, predictions, rows, best, against)
    return Summary(
        study=study.name,
        question=study.question,
        metric=study.metric,
        images=crossed.images if crossed else 0,
        results=results,
        best=best,
        level=tuple(name for name, place in places.items() if place in {"best", "tied", "ahead"}),
        comparisons=comparisons,
        pairs=pairs,
        groups=groups,
        ruling=judge(scenario, places, {c.strategy: c for c in comparisons}, metric.sign)
        if scenario
        else None,
        verdict=verdict(results, comparisons, study, crossed.images if crossed else 0),
        notes=(
            *notes_on(evidence, predictions, results),
            *(() if task.one_class else never_found(classes, study)),
            *undertrained_in_words(evidence),
            *sensitivity(comparisons),
        ),
        classes=classes,
        gain_over=against,
        confused=confused(evidence, best),
        data_digest=str(evidence.provenance.get("data digest", "")),
    )


def _rows(predictions: Predictions, strategies: Sequence[str]) -> dict[str, dict[int, int]]:
    """Return strategy to seed to row of the predictions, for the strategies that have any."""
    rows: dict[str, dict[int, int]] = {}
    for (name, seed), row in predictions.rows.items():
        rows.setdefault(name, {})[seed] = row
    return {name: rows[name] for name in strategies if name in rows}


def _set_against(evidence: Evidence, best: str | None) -> str | None:
    """Return what the best is compared with by class: the frozen backbone, or else the runner-up."""
    if best is None:
        return None
    if best != FROZEN and (evidence.done["strategy"] == FROZEN).any():
        return FROZEN
    return best_by_validation(evidence, without=best)
