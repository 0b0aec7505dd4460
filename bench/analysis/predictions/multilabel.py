"""Predictions of any number of classes for each image: rows like those of masks, images for pixels."""

import dataclasses

from bench.analysis.evidence import Evidence, of_done
from bench.analysis.predictions.base import Predictions, scores_of
from bench.analysis.predictions.segmentation import of_counts


def read(evidence: Evidence) -> Predictions:
    """Return which classes each done run gives to each image, for the images that all of them have."""
    found = of_counts(of_done(evidence, evidence.predictions))
    return dataclasses.replace(found, scores=scores_of(evidence, found.rows, found.images, found.classes))
