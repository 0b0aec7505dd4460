"""From evidence to a summary: results, comparisons with the best, the ruling and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pydantic import TypeAdapter

from bench.analysis.comparisons import Comparison, Place, group, letters
from bench.analysis.errors_by_class import ClassResult, Confused, by_class, confused
from bench.analysis.evidence import Evidence
from bench.analysis.expectations import Judged, judge_expected
from bench.analysis.predictions.base import read
from bench.analysis.recommendation import Recommendation, recommend
from bench.analysis.results import Result, by_validation, result_of
from bench.analysis.rules_of_thumb import Ruling, Standing, judge
from bench.analysis.sequential import compare_in_looks
from bench.analysis.settling import Settling, what_would_settle
from bench.analysis.statistics import measured
from bench.analysis.training_length import undertrained, undertrained_in_words
from bench.analysis.variance import Crossed
from bench.analysis.verdict import SMOKE_TEST, never_found, notes_on, sensitivity, troubles, verdict
from bench.core.text import listed
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS

FROZEN = "feature_extractor"


@dataclass(frozen=True)
class Summary:
    """All that the report says, as data.

    Args:
        best: the best strategy by mean validation metric; test does not choose. None: no run is done.
        not_worse: the strategies that are not shown to be worse than the best, itself included.
        comparisons: of each other strategy with the best, strategy minus best.
        pairs: of all strategies with each other, in canonical order.
        groups: the largest sets of strategies no two of which are shown to differ, best mean first.
        recommendation: what to use, and why; None where nothing could be compared.
        settling: what would settle what is open about the recommended strategy; None where nothing is.
        verdict: who won, how sure, in plain words.
        notes: what limits the verdict: failures, missing runs, a single seed.
        gain_over: what the best is set against by class; None if there is nothing.
        confused: the pairs of classes that the best confuses most.
        data_digest: of the images and labels; the same is the same data set. Empty: unknown.
        margin: the smallest difference that matters, as the study has it.
        smoke: whether it is of a smoke test, which names no best, compares nothing and rules on nothing.
        image_groups: how many groups the test images come in; as many as images where none belong together.
        baselines: what they reached: in no comparison, and nothing follows from them.
        also: what is said of further test sets, by name.
        expected: what became of what the study says beforehand.
    """

    study: str
    question: str
    metric: str
    images: int
    results: tuple[Result, ...]
    best: str | None
    not_worse: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    groups: tuple[tuple[str, ...], ...]
    recommendation: Recommendation | None
    ruling: Ruling | None
    verdict: str
    notes: tuple[str, ...]
    classes: tuple[ClassResult, ...]
    gain_over: str | None
    confused: tuple[Confused, ...]
    data_digest: str = ""
    margin: float = 0.02
    image_groups: int = 0
    smoke: bool = False
    baselines: tuple[Result, ...] = ()
    expected: tuple[Judged, ...] = ()
    also: Mapping[str, "Summary"] = field(default_factory=dict)
    settling: Settling | None = None

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
    def ranked(self) -> tuple[Result, ...]:
        """All results, the best on test first; those without one last."""
        sign = METRICS[self.metric].sign

        def behind(result: Result) -> float:
            return float("inf") if result.test_mean is None else -sign * result.test_mean

        return tuple(sorted(self.results, key=behind))

    @property
    def finding(self) -> str:
        """Which strategies come first, in half a sentence; empty where nothing is compared."""
        others = [name for name in self.not_worse if name != self.best]
        if self.best is None or not self.comparisons:
            return ""
        if not others:
            return f"{self.best} is better than all others"
        are = "is" if len(others) == 1 else "are"
        return f"{self.best} is best by validation; {listed(others)} {are} not shown to be worse"

    @property
    def groups_in_words(self) -> str:
        """Which strategies are not shown to differ, and which are; empty without a comparison."""
        together = "; ".join(", ".join(names) for names in self.groups if len(names) > 1)
        alone = ", ".join(names[0] for names in self.groups if len(names) == 1)
        sentences = [f"Not shown to differ from one another: {together}."] * bool(together)
        return " ".join([*sentences, *[f"Shown to differ from all others: {alone}."] * bool(alone)])


def summarise(evidence: Evidence) -> Summary:
    """Return what the evidence says. The same evidence gives the same summary: nothing is drawn at random."""
    summary = _summary(evidence)
    return _of_smoke_test(summary) if evidence.budget == "smoke" else summary


def _of_smoke_test(summary: Summary) -> Summary:
    """Return a summary without all that a smoke test can't say: only that things work, or don't."""
    results = tuple(
        replace(result, place="not compared" if result.done else "no result", letters="", undertrained=None)
        for result in summary.results
    )
    return replace(
        summary,
        smoke=True,
        results=results,
        verdict=SMOKE_TEST,
        notes=troubles(summary.results),
        best=None,
        not_worse=(),
        comparisons=(),
        pairs=(),
        groups=(),
        recommendation=None,
        settling=None,
        ruling=None,
        gain_over=None,
        confused=(),
        expected=(),
        also={name: _of_smoke_test(other) for name, other in summary.also.items()},
    )


def _summary(evidence: Evidence) -> Summary:
    study, task = evidence.study, TASKS[evidence.study.task]
    predictions = read(evidence)
    metric = METRICS[study.metric]
    crossed = measured(metric, predictions, evidence.overlap) if predictions.correct.size else None
    order = by_validation(evidence)
    best = order[0] if order else None
    rows = predictions.by_strategy(evidence.strategies)
    pairs = compare_in_looks(rows, crossed, study.smallest_effect, study.looks) if crossed else ()
    either_way = {(c.strategy, c.other): c for pair in pairs for c in (pair, pair.reversed())}
    comparisons = tuple(either_way[name, best] for name in rows if best and (name, best) in either_way)
    results = _results(evidence, rows, crossed, best, comparisons)
    ranked = sorted(
        rows,
        key=lambda name: -metric.sign * next(r.test.value for r in results if r.strategy == name and r.test),
    )
    groups = group(ranked, pairs) if crossed and crossed.decides else ()
    lettered = letters(groups)
    results = tuple(replace(result, letters=lettered.get(result.strategy, "")) for result in results)
    against = _set_against(evidence, order)
    classes = by_class(task, predictions, rows, best, against)
    standing = Standing(evidence.strategies, [name for name in order if name in rows], either_way)
    recommendation = recommend(results, best, pairs)
    return Summary(
        study=study.name,
        question=study.question,
        metric=study.metric,
        images=crossed.images if crossed else 0,
        results=results,
        best=best,
        not_worse=tuple(r.strategy for r in results if r.place in {"best", *GOOD}),
        comparisons=comparisons,
        pairs=pairs,
        groups=groups,
        recommendation=recommendation,
        settling=(
            what_would_settle(recommendation.strategy, pairs, crossed.groups, evidence.command)
            if recommendation and crossed
            else None
        ),
        ruling=judge(study.scenario, standing) if study.scenario else None,
        verdict=verdict(results, comparisons, study, crossed),
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
        margin=study.smallest_effect,
        image_groups=crossed.groups if crossed else 0,
        baselines=_baselines(evidence.baselines) if evidence.baselines else (),
        also={name: _summary(replace(other, also={})) for name, other in evidence.also.items()},
        expected=judge_expected(study.expected, results, either_way, study.metric),
    )


def _baselines(evidence: Evidence) -> tuple[Result, ...]:
    """Return a result for each baseline, with its interval."""
    predictions, metric = read(evidence), METRICS[evidence.study.metric]
    crossed = measured(metric, predictions, evidence.overlap) if predictions.correct.size else None
    rows = predictions.by_strategy(evidence.strategies)
    return tuple(result_of(evidence, rows, crossed, name, "baseline") for name in evidence.strategies)


GOOD: tuple[Place, ...] = ("better", "equivalent", "undecided")  # against the best


def _results(
    evidence: Evidence,
    rows: Mapping[str, Mapping[int, int]],
    crossed: Crossed | None,
    best: str | None,
    comparisons: Sequence[Comparison],
) -> tuple[Result, ...]:
    """Return a result for each strategy, with its place against the best."""
    places: dict[str, Place] = dict.fromkeys(evidence.strategies, "not compared")
    places |= {name: "no result" for name in places if name not in set(evidence.done["strategy"])}
    places |= {comparison.strategy: comparison.relation for comparison in comparisons}
    if best:
        places[best] = "best"
    rising = undertrained(evidence)
    return tuple(
        replace(result_of(evidence, rows, crossed, name, place), undertrained=rising.get(name))
        for name, place in places.items()
    )


def _set_against(evidence: Evidence, order: Sequence[str]) -> str | None:
    """Return what the best is compared with by class: the frozen backbone, or else the runner-up."""
    if not order:
        return None
    if order[0] != FROZEN and (evidence.done["strategy"] == FROZEN).any():
        return FROZEN
    return order[1] if len(order) > 1 else None
