"""Predictions of a class for each pixel: a row for each image and class that truth or prediction shows."""

import numpy as np
import pandas as pd

from bench.analysis.evidence import Evidence, group_names
from bench.analysis.predictions.base import Predictions
from bench.study.metrics import Counts

KEY = ["strategy", "seed"]
COUNTS = ["truth", "predicted", "intersection"]


def read(evidence: Evidence) -> Predictions:
    """Return the pixels that each done run gets right, for the images that all of them have.

    A class that occurs in no truth has no IoU; what is predicted of it counts against the other classes.
    """
    done = pd.MultiIndex.from_frame(evidence.done[KEY])
    predictions = evidence.predictions
    return of_counts(predictions[pd.MultiIndex.from_frame(predictions[KEY]).isin(done)])


def of_counts(known: pd.DataFrame) -> Predictions:
    """Return predictions from rows of strategy, seed, image, target (the class) and `COUNTS`."""
    if known.empty:
        nothing = np.zeros((0, 0))
        return Predictions({}, nothing, np.zeros(0, str), 0, count=lambda: Counts(nothing, nothing, nothing))
    shown = known.groupby("target")["truth"].sum().sort_values(ascending=False, kind="stable")
    classes = [name for name, number in shown.items() if number > 0]
    images = known.groupby("image")[KEY].apply(lambda rows: len(rows.drop_duplicates()))
    complete = images.index[images == len(known[KEY].drop_duplicates())]
    named = group_names(known, complete)
    known = known[known["image"].isin(complete) & known["target"].isin(classes)]
    rows = list(dict.fromkeys(zip(known["strategy"], known["seed"], strict=True)))
    counts = _as_arrays(known, pd.MultiIndex.from_product([rows, complete, classes]))
    labelled = counts.truth.sum(axis=1)
    hits = counts.intersection.sum(axis=2)
    right = np.divide(hits, labelled[None], out=np.ones(hits.shape), where=labelled[None] > 0)
    return Predictions(
        rows={(str(strategy), int(seed)): row for row, (strategy, seed) in enumerate(rows)},
        correct=right,
        targets=np.full(len(complete), ""),
        dropped=len(images) - len(complete),
        images=tuple(map(str, complete)),
        classes=tuple(map(str, classes)),
        count=lambda: counts,
        group_names=named,
    )


def _as_arrays(known: pd.DataFrame, whole: pd.MultiIndex) -> Counts:
    """Return the counts of all (run, image, class) of `whole`; what has no row is zero."""
    runs = list(zip(known["strategy"], known["seed"], strict=True))
    index = pd.MultiIndex.from_arrays([runs, known["image"], known["target"]])
    table = known[COUNTS].set_axis(index).reindex(whole, fill_value=0)
    shape = tuple(len(level) for level in whole.levels)
    truth, predicted, intersection = (table[name].to_numpy(dtype=float).reshape(shape) for name in COUNTS)
    return Counts(truth[0], predicted, intersection)
