"""What a model said of many pictures: as a table, as JSON, and those that it is least certain of."""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.dataset import NO_LABEL
from bench.data.decoding import part_shown
from bench.data.mask_colours import COLOURS, colours, overlay
from bench.export.answers.base import Answer, answering
from bench.export.masks import MaskFolder
from bench.export.model_facts import ModelFacts
from bench.export.prediction import LeftOut, Predicted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Row:
    """What was said of a picture, without its pixels; `mask` is the file of its mask, if one was written."""

    name: str
    label: str
    probability: float | str
    details: dict[str, Any]
    mask: str = ""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of many pictures.

    Args:
        rows: in the order of the pictures.
        left_out: those that can't be read.
        least_certain: with their pixels, the least certain first.
    """

    facts: ModelFacts
    rows: list[Row]
    left_out: list[LeftOut]
    least_certain: list[Predicted]

    def frame(self) -> "pd.DataFrame":
        """Return a row for each picture: file, class, probability."""
        import pandas as pd

        cells = [(row.name, row.label, row.probability) for row in self.rows]
        return pd.DataFrame(cells, columns=["file", "class", "probability"])

    def as_json(self) -> dict[str, Any]:
        """Return all that was said, as JSON types."""
        masks = [{"mask": row.mask} if row.mask else {} for row in self.rows]
        return {
            "model": self.facts.model_dump(mode="json"),
            "predictions": [
                {"file": row.name, **row.details, **mask} for row, mask in zip(self.rows, masks, strict=True)
            ],
            "left_out": [{"file": one.name, "reason": one.reason} for one in self.left_out],
        }

    @property
    def shown(self) -> Iterator[tuple[str, str, str]]:
        """The same for people: what is unsure says so, probabilities have three digits."""
        unsure = answering(self.facts.task).UNSURE
        for row in self.rows:
            known = row.probability
            yield row.name, row.label or unsure, known if isinstance(known, str) else f"{known:.3f}"

    @property
    def unsure(self) -> int:
        """Of how many pictures nothing is said."""
        return sum(not row.label for row in self.rows)

    def pictures(self) -> list[np.ndarray]:
        """Return the least certain pictures, uint8 (S, S, 3) each; with masks in colours over them."""
        return [_over(one) for one in self.least_certain]

    def captions(self) -> list[tuple[str, str]]:
        """Return for each of them what is said of it, and its name without folders."""
        unsure = answering(self.facts.task).UNSURE
        return [(_caption(one.answer, unsure), one.name.rpartition("/")[2]) for one in self.least_certain]

    def legend(self) -> dict[str, tuple[int, ...]]:
        """Return the classes in the masks of the least certain pictures, with their colours; none without."""
        masks = [one.answer.mask for one in self.least_certain if one.answer.mask is not None]
        there = {int(number) for mask in masks for number in np.unique(mask)} - {NO_LABEL}
        table = colours(max(len(self.facts.classes), len(COLOURS)))
        return {self.facts.classes[n]: tuple(map(int, table[n])) for n in sorted(there)}


def collect(
    facts: ModelFacts, predicted: Iterable[Predicted | LeftOut], least_certain: int, masks: MaskFolder | None
) -> Predictions:
    """Take in what is said, picture by picture: of pixels only those of the least certain are kept.

    Args:
        facts: of the model.
        predicted: what it says.
        least_certain: how many of these pictures are kept.
        masks: takes the masks.
    """
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    kept: list[tuple[float, int, Predicted]] = []  # a heap, the most certain first
    number = itertools.count()
    for one in predicted:
        if isinstance(one, LeftOut):
            left_out.append(one)
            continue
        answer = one.answer
        mask = str(masks.write(one)) if masks else ""
        rows.append(Row(one.name, answer.label, answer.probability, dict(answer.details), mask))
        if least_certain:
            heapq.heappush(kept, (-answer.certainty, -next(number), one))
            if len(kept) > least_certain:
                heapq.heappop(kept)
    least = [one for *_, one in sorted(kept, key=lambda item: item[:2], reverse=True)]
    return Predictions(facts, rows, left_out, least)


def _over(one: Predicted) -> np.ndarray:
    if one.answer.mask is None:
        return one.picture.pixels
    mask = np.full(one.picture.pixels.shape[:2], NO_LABEL, dtype=np.uint8)
    mask[part_shown(one.picture.size, len(mask))] = one.answer.mask
    return overlay(one.picture.pixels, mask)


def _caption(answer: Answer, unsure: str) -> str:
    number = answer.probability if isinstance(answer.probability, float) else answer.certainty
    return f"{number:.2f} {answer.label or unsure}"
