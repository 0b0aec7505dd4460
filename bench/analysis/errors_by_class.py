"""What strategies get wrong: results by class, the gain of one strategy over another, confused classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.evidence import Evidence
from bench.analysis.predictions.base import Predictions
from bench.analysis.statistics import of_class, rows_of, sample_of, shares
from bench.analysis.variance import Crossed, Sample, Scale
from bench.study.metrics import Ranking, Ratio, ShareRight
from bench.study.tasks import TASKS, Task

PAIRS = 10
EXAMPLES = 5  # images named for a pair


@dataclass(frozen=True)
class Gain:
    """How much more of a class one strategy gets right than another, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassResult:
    """The score of a class by strategy, mean over its seeds: what its task says, such as the share right.

    Args:
        images: how many test images are of it, or show it.
        gain: of the best strategy over the one that it is set against; None if there is none.
    """

    name: str
    images: int
    recall: Mapping[str, float]
    gain: Gain | None


@dataclass(frozen=True)
class Confused:
    """Test images of one class that the best strategy takes for another.

    Args:
        predictions: so many over all seeds; `share`: of all predictions for images of the target.
        examples: images so taken by the most seeds, by name: of those whose pictures are at hand, if any are.
    """

    target: str
    prediction: str
    predictions: int
    share: float
    examples: tuple[str, ...]


def by_class(
    task: Task,
    predictions: Predictions,
    rows: Mapping[str, Mapping[int, int]],
    best: str | None,
    other: str | None,
) -> tuple[ClassResult, ...]:
    """Return the results by class, with the gain of `best` over `other` where both are known."""
    shared = sorted(set(rows.get(best or "", ())) & set(rows.get(other or "", ())))
    sides = [[rows[name][s] for s in shared] for name in (best, other) if name and shared]
    statistic = task.class_statistic
    if isinstance(statistic, ShareRight):
        return _shares_by_class(predictions, rows, sides)
    return _scores_by_class(statistic, predictions, rows, sides) if predictions.rows else ()


def _shares_by_class(
    predictions: Predictions, rows: Mapping[str, Mapping[int, int]], sides: Sequence[list[int]]
) -> tuple[ClassResult, ...]:
    correct, targets = predictions.correct, predictions.targets
    names, label = np.unique(targets, return_inverse=True)
    sample = sample_of(predictions, ShareRight())
    ends = np.cumsum(np.bincount(label, minlength=len(names)))[:-1]
    images = np.split(np.argsort(label, kind="stable"), ends)
    return tuple(
        ClassResult(
            name=str(target),
            images=len(chosen),
            recall={
                name: float(correct[np.ix_(np.array(list(mine.values())), chosen)].mean())
                for name, mine in rows.items()
            },
            gain=_gain_of_class(correct[:, chosen], sample.of(chosen), sides) if len(sides) == 2 else None,
        )
        for target, chosen in zip(names, images, strict=False)  # of no images one part is left
    )


def _scores_by_class(
    statistic: Ratio | Ranking,
    predictions: Predictions,
    rows: Mapping[str, Mapping[int, int]],
    sides: Sequence[list[int]],
) -> tuple[ClassResult, ...]:
    compared = rows_of(predictions, [*sides[0], *sides[1]]) if len(sides) == 2 else None
    results = []
    for place, label in enumerate(predictions.classes):
        crossed = of_class(statistic, predictions, place)
        results.append(
            ClassResult(
                name=label,
                images=int((predictions.counts.truth[:, place] > 0).sum()),
                recall={name: crossed.mean(list(mine.values())) for name, mine in rows.items()},
                gain=_gain_of(of_class(statistic, compared, place), sides) if compared else None,
            )
        )
    return tuple(results)


def _gain_of_class(correct: np.ndarray, sample: Sample, sides: Sequence[list[int]]) -> Gain:
    measured = shares(correct[[*sides[0], *sides[1]]], sample)
    return _gain_of(Crossed(*measured, sample, Scale(shares=True)), sides)


def _gain_of(crossed: Crossed, sides: Sequence[list[int]]) -> Gain:
    """Return the difference of the first side's runs, which come first in `crossed`, and the second's."""
    one, other = sides
    return Gain(*crossed.gap(range(len(one)), range(len(one), len(one) + len(other))))


def confusion(evidence: Evidence, strategy: str) -> pd.DataFrame:
    """Return how often test images of a class were taken for each, over all done seeds, without the zeros.

    A row for each pair that occurs: of thousands of classes few are ever confused, and a whole matrix would
    not fit into memory.

    Returns:
        Columns target, prediction, predictions; sorted by the names.
    """
    mine = _predictions_of(evidence, strategy)
    pairs = mine[["target", "prediction"]].astype(str)
    return pairs.groupby(["target", "prediction"], observed=True).size().reset_index(name="predictions")


def confused(evidence: Evidence, strategy: str | None) -> tuple[Confused, ...]:
    """Return the pairs of classes that a strategy confuses most, by the number of predictions."""
    if strategy is None or not TASKS[evidence.study.task].one_class:
        return ()
    mine = _predictions_of(evidence, strategy)
    wrong = mine[mine["target"] != mine["prediction"]]
    counts = (
        wrong.groupby(["target", "prediction"], observed=True)
        .size()
        .sort_values(ascending=False, kind="stable")
    )
    totals = mine["target"].value_counts()
    pairs = counts.head(PAIRS).reset_index(name="predictions").itertuples(index=False, name=None)
    return tuple(
        Confused(
            str(target),
            str(prediction),
            int(count),
            float(count / totals[target]),
            tuple(_most_often(wrong, target, prediction, evidence.images)),
        )
        for target, prediction, count in pairs
    )


def _most_often(wrong: pd.DataFrame, target: str, prediction: str, kept: Collection[str]) -> list[str]:
    images = wrong[(wrong["target"] == target) & (wrong["prediction"] == prediction)]["image"].astype(str)
    at_hand = images[images.isin(list(kept))]
    return (at_hand if len(at_hand) else images).value_counts(sort=False).nlargest(EXAMPLES).index.tolist()


def _predictions_of(evidence: Evidence, strategy: str) -> pd.DataFrame:
    done = evidence.done
    seeds = done.loc[done["strategy"] == strategy, "seed"]
    known = evidence.predictions
    return known[(known["strategy"] == strategy) & known["seed"].isin(seeds)]
