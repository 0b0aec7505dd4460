"""Whether one class is much more common than another, which decides what results are to be measured by."""

import numpy as np

from bench.data.dataset import Dataset
from bench.study.schema import Study

UNEVEN = 2  # times as many images of the largest class as of the smallest


def signs_of_imbalance(dataset: Dataset, study: Study, train: np.ndarray) -> str:
    """Say, if the study measures accuracy, how uneven the training labels are, with what to do; or nothing.

    Args:
        dataset: of images with a class each.
        study: what is asked.
        train: the training images.
    """
    if study.metric != "accuracy":
        return ""
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] <= UNEVEN * counts[least]:
        return ""
    found = (
        f"{counts[most]:,} training images show '{dataset.classes[most]}', {counts[least]:,} "
        f"'{dataset.classes[least]}'"
    )
    return f"{found}; if every class counts alike, say metric: balanced_accuracy"
