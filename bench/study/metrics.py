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


@dataclass(frozen=True, eq=False)
class Certainty:
    """How sure R runs are of the class of N images, by probabilities that are calibrated.

    One temperature divides all logits of a run, fitted on its validation images (Guo et al. 2017, "On
    calibration of modern neural networks"). Each is an array of shape (R, N).

    Args:
        log_loss: minus the natural logarithm of the true class's probability.
        confidence: the probability of the class predicted.
    """

    log_loss: "np.ndarray"
    confidence: "np.ndarray"


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


@dataclass(frozen=True)
class LogLoss:
    """The mean over images of their log loss."""


@dataclass(frozen=True)
class CalibrationError:
    """How far confidence is from the share that is right: mean over images of their bin's distance.

    Args:
        bins: of confidence, equally wide (Guo et al. 2017, equation 3).
    """

    bins: int = 15


ClassStatistic = ShareRight | Ratio | Ranking  # what there is of a single class, too
Statistic = ClassStatistic | LogLoss | CalibrationError


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
        "nll",
        "NLL",
        "minus the logarithm of the true class's calibrated probability, mean over images (nats)",
        ("classification",),
        LogLoss(),
        direction="lower",
        range=(0.0, float("inf")),
    )
)
METRICS.add(
    Metric(
        "calibration_error",
        "calibration error",
        "calibrated confidence against the share that is right, in 15 bins (Guo et al. 2017)",
        ("classification",),
        CalibrationError(),
        direction="lower",
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
