"""Predictions of a class for each image."""

import numpy as np
import pandas as pd

from bench.analysis.evidence import Evidence, group_names, of_done
from bench.analysis.predictions.base import Predictions, scores_of
from bench.study.metrics import Certainty, Counts

KEY = ["strategy", "seed"]
CERTAINTY = ("log_loss", "calibrated_probability")  # of the table; runs of before they were kept lack them


def read(evidence: Evidence) -> Predictions:
    """Return which done run is right on which image, for the images that all of them have."""
    known = of_done(evidence, evidence.predictions)
    right = (known["target"] == known["prediction"]).astype(float)
    table = _by_image(known.assign(right=right), "right")
    complete = table.dropna(axis="columns")
    by_image = known.drop_duplicates("image").set_index("image")["target"].reindex(complete.columns)
    targets = by_image.astype(str).to_numpy(dtype=str)
    classes = np.unique(targets)

    def count() -> Counts:
        predicted = _by_image(known, "prediction")[complete.columns].astype(str).to_numpy(dtype=str)
        return one_class_counts(_one_hot(targets, classes), _one_hot(predicted, classes))

    def find_certainty() -> Certainty:
        tables = (_by_image(known, column)[complete.columns] for column in CERTAINTY)
        return Certainty(*(table.to_numpy(dtype=float) for table in tables))

    rows = {(str(strategy), int(seed)): row for row, (strategy, seed) in enumerate(complete.index)}
    images, names = tuple(map(str, complete.columns)), tuple(map(str, classes))
    return Predictions(
        rows=rows,
        correct=complete.to_numpy(dtype=float),
        targets=targets,
        dropped=table.shape[1] - complete.shape[1],
        images=images,
        classes=names,
        count=count,
        find_certainty=find_certainty,
        scores=scores_of(evidence, rows, images, names),
        group_names=group_names(known, images),
    )


def one_class_counts(truth: np.ndarray, predicted: np.ndarray) -> Counts:
    """Return counts of images that have a class (1) or not (0): truth (N, K), predicted (R, N, K)."""
    return Counts(truth, predicted, predicted * truth)


def _by_image(known: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a row for each run, a column for each image; refuse an image that is named twice."""
    # not pivot_table, which would average over it
    return known.pivot(index=KEY, columns="image", values=column)  # noqa: PD010


def _one_hot(names: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 1 where a name is that of a class: (...) to (..., K)."""
    return np.asarray(names[..., None] == classes, dtype=float)
