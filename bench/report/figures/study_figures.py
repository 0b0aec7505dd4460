"""The figures of a study, in the order in which they are shown."""

from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.report.figures import (
    errors_by_class,
    results,
    segmentation,
    stages,
    tuning,
)
from bench.report.figures.base import Picture

OF_MASKS = ("examples", "iou_by_class")  # in reports on segmentation only
# Every figure that a report may have; one that is not drawn this time is removed from its folder.
NAMES = (
    *("accuracy", "cost", "curves", "tuning", "hyperparameters"),
    *("stages", "confusion", "confused_pairs", "gain_by_class"),
    *OF_MASKS,
)


def of_study(evidence: Evidence, summary: Summary) -> list[Picture]:
    """Return the figures of a study, as far as there is something to draw."""
    drawn = [
        results.accuracy(evidence, summary),
        results.cost(summary),
        results.curves(evidence, summary),
        segmentation.examples(evidence, summary),
        segmentation.iou_by_class(evidence, summary),
        errors_by_class.gain(summary),
        errors_by_class.matrix(evidence, summary),
        errors_by_class.pairs(evidence, summary),
        tuning.progress(evidence, summary),
        tuning.hyperparameters(evidence, summary),
        stages.moved(evidence),
    ]
    return [picture for picture in drawn if picture is not None]
