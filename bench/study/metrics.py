"""What a result is measured by: one record for each metric, read by training, analysis and report alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np


@dataclass(frozen=True, eq=False)
class Counts:
    """What N images hold of K classes: pixels of a mask, or 1 and 0 where an image has a class as a whole.

    Args:
        truth: float, shape (N, K), the same for all runs.
        predicted: float, shape (R, N, K), of each run.
        intersection: float, shape (R, N, K): what is both.
    """

    truth: "np.ndarray"
    predicted: "np.ndarray"
    intersection: "np.ndarray"


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the P images that show a class stand in the ranking of all images by their score for it.

    Images with equal scores share a place. Each is an array of shape (P,).

    Args:
        positives_from, images_from: of the images ranked as high as each or higher: those that show the
            class, and all.
        negatives_below: images below each that don't show the class, those at the same place by half.
        negatives: all images that don't show the class.
    """

    positives_from: "np.ndarray"
    images_from: "np.ndarray"
    negatives_below: "np.ndarray"
    negatives: "np.ndarray"


@dataclass(frozen=True)
class ShareRight:
    """The share of images that are right.

    Args:
        by_class: the mean over classes of the share within each.
    """

    by_class: bool = False


@dataclass(frozen=True)
class Ratio:
    """A sum over all images by another, of each class; the mean over the classes that occur in the truth.

    Args:
        parts: from counts to what is summed above and below the line, each (R, N, K) or (N, K).
        together: the classes are summed first: one ratio.
    """

    parts: "Callable[[Counts], tuple[np.ndarray, np.ndarray]]"
    together: bool = False


@dataclass(frozen=True)
class Ranking:
    """A credit for the place in a class's ranking: the mean over the images that show it, then over classes.

    Args:
        credit: from ranks to a credit for each image, shape (P,); smooth in every count.
    """

    credit: "Callable[[Ranks], np.ndarray]"


Statistic = ShareRight | Ratio | Ranking


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        name: as a study and the columns have it.
        label: as a person writes it.
        summary: one line, with its source.
        tasks: those that it measures; the first metric of a task is its default.
        statistic: its definition, and so what each image adds to it.
        direction: which values are better.
        range: the lowest and the highest value there can be.
    """

    name: str
    label: str
    summary: str
    tasks: tuple[str, ...]
    statistic: Statistic
    direction: Literal["higher", "lower"] = "higher"
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def pooled(self) -> bool:
        """Whether it is a statistic of the whole set, and not the mean of a value of each image."""
        return self.statistic != ShareRight()

    @property
    def sign(self) -> int:
        """1 where higher values are better, -1 where lower ones are."""
        return 1 if self.direction == "higher" else -1

    def best(self, values: "Iterable[float]") -> float:
        """Return the best of some values; ValueError if there are none."""
        return max(values) if self.sign > 0 else min(values)


IOU = Ratio(lambda n: (n.intersection, n.truth + n.predicted - n.intersection))
PRECISION = Ranking(lambda r: r.positives_from / r.images_from)

METRICS: Registry[Metric] = Registry("metric")


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of the metrics of a task, its default first."""
    return tuple(metric.name for metric in METRICS.values() if task in metric.tasks)


METRICS.add(
    Metric("accuracy", "accuracy", "share of images that are right", ("classification",), ShareRight())
)
METRICS.add(
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        "share of images that are right within a class, mean over classes",
        ("classification",),
        ShareRight(by_class=True),
    )
)
METRICS.add(
    Metric(
        "mean_average_precision",
        "mAP",
        "precision at each image of a class in the ranking for it, mean over images and over classes",
        ("multilabel",),
        PRECISION,
    )
)
METRICS.add(
    Metric(
        "micro_f1",
        "micro-F1",
        "harmonic mean of precision and recall, over the labels of all classes",
        ("multilabel",),
        Ratio(lambda n: (2 * n.intersection, n.truth + n.predicted), together=True),
    )
)
METRICS.add(
    Metric(
        "macro_f1",
        "macro-F1",
        "harmonic mean of a class's precision and recall, mean over classes",
        ("classification", "multilabel"),
        Ratio(lambda n: (2 * n.intersection, n.truth + n.predicted)),
    )
)
METRICS.add(
    Metric(
        "auroc",
        "AUROC",
        "area under the ROC curve of a class against all others, mean over classes",
        ("classification",),
        Ranking(lambda r: r.negatives_below / r.negatives),
    )
)
METRICS.add(
    Metric(
        "average_precision",
        "average precision",
        "precision at each image of a class in the ranking for it, mean over images and over classes",
        ("classification",),
        PRECISION,
    )
)
METRICS.add(
    Metric(
        "mean_iou",
        "mean IoU",
        "intersection over union of all pixels of a class, mean over classes",
        ("segmentation",),
        IOU,
    )
)
METRICS.add(
    Metric(
        "pixel_accuracy",
        "pixel accuracy",
        "share of pixels that are right",
        ("segmentation",),
        Ratio(lambda n: (n.intersection, n.truth), together=True),
    )
)
