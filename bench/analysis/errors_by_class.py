"""What strategies get wrong: results by class, the gain of one strategy over another, confused classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.evidence import Answers, Evidence, Pixels
from bench.analysis.variance import Crossed, CrossedRatios

DRAWS = 1000
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
    """Share of a class's test images that each strategy gets right, mean over its seeds.

    For segmentation the IoU of the class, and how many test images show it.

    Args:
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
        answers: so many over all seeds; `share`: of all answers on images of the target.
        examples: images so taken by the most seeds, by name: of those whose pictures are at hand, if any are.
    """

    target: str
    prediction: str
    answers: int
    share: float
    examples: tuple[str, ...]


def by_class(
    found: Answers, rows: Mapping[str, Mapping[int, int]], best: str | None, other: str | None
) -> tuple[ClassResult, ...]:
    """Return the results by class, with the gain of `best` over `other` where both are known."""
    shared = sorted(set(rows.get(best or "", ())) & set(rows.get(other or "", ())))
    sides = [[rows[name][s] for s in shared] for name in (best, other) if name and shared]
    if found.pixels:
        return _iou_by_class(found.pixels, rows, sides)
    names, label = np.unique(found.targets, return_inverse=True)
    ends = np.cumsum(np.bincount(label, minlength=len(names)))[:-1]
    images = np.split(np.argsort(label, kind="stable"), ends)
    return tuple(
        ClassResult(
            name=str(target),
            images=len(chosen),
            recall={
                name: float(found.correct[np.ix_(np.array(list(mine.values())), chosen)].mean())
                for name, mine in rows.items()
            },
            gain=_gain(found.correct[:, chosen], sides) if len(sides) == 2 else None,
        )
        for target, chosen in zip(names, images, strict=False)  # of no images one part is left
    )


def _iou_by_class(
    pixels: Pixels, rows: Mapping[str, Mapping[int, int]], sides: Sequence[list[int]]
) -> tuple[ClassResult, ...]:
    iou = pixels.intersection.sum(1) / pixels.union.sum(1)
    return tuple(
        ClassResult(
            name=label,
            images=int((pixels.truth[:, k] > 0).sum()),
            recall={name: float(iou[list(mine.values()), k].mean()) for name, mine in rows.items()},
            gain=_gain_of(_one_class(pixels, [*sides[0], *sides[1]], k), sides) if len(sides) == 2 else None,
        )
        for k, label in enumerate(pixels.classes)
    )


def _one_class(pixels: Pixels, rows: list[int], k: int) -> Crossed:
    one = slice(k, k + 1)
    above, below = (part[rows][:, :, one] for part in (pixels.intersection, pixels.union))
    return CrossedRatios(above, below, pixels.truth[:, one], DRAWS)


def _gain(correct: np.ndarray, sides: Sequence[list[int]]) -> Gain:
    rows = [*sides[0], *sides[1]]
    return _gain_of(Crossed(correct[rows], np.zeros(correct.shape[1], int), DRAWS), sides)


def _gain_of(crossed: Crossed, sides: Sequence[list[int]]) -> Gain:
    """Return the difference of the first side's runs, which come first in `crossed`, and the second's."""
    one, other = sides
    difference = crossed.difference(range(len(one)), range(len(one), len(one) + len(other)))
    return Gain(difference.value, difference.low, difference.high)


def confusion(evidence: Evidence, strategy: str) -> pd.DataFrame:
    """Return how often test images of a class were taken for each, over all done seeds, without the zeros.

    A row for each pair that occurs: of thousands of classes few are ever confused, and a whole matrix would
    not fit into memory.

    Returns:
        Columns target, prediction, answers; sorted by the names.
    """
    mine = _answers_of(evidence, strategy)
    pairs = mine[["target", "prediction"]].astype(str)
    return pairs.groupby(["target", "prediction"], observed=True).size().reset_index(name="answers")


def confused(evidence: Evidence, strategy: str | None) -> tuple[Confused, ...]:
    """Return the pairs of classes that a strategy confuses most, by the number of answers."""
    if strategy is None or evidence.study.task == "segmentation":
        return ()
    mine = _answers_of(evidence, strategy)
    wrong = mine[mine["target"] != mine["prediction"]]
    counts = (
        wrong.groupby(["target", "prediction"], observed=True)
        .size()
        .sort_values(ascending=False, kind="stable")
    )
    totals = mine["target"].value_counts()
    pairs = counts.head(PAIRS).reset_index(name="answers").itertuples(index=False, name=None)
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


def _answers_of(evidence: Evidence, strategy: str) -> pd.DataFrame:
    done = evidence.done
    seeds = done.loc[done["strategy"] == strategy, "seed"]
    known = evidence.predictions
    return known[(known["strategy"] == strategy) & known["seed"].isin(seeds)]
