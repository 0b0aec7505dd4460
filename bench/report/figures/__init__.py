"""The figures of a report, a module for each kind of question; in the order in which they are shown."""

from bench.analysis import Evidence, Summary
from bench.report.figures import mistakes, results, segmentation, stages, tuning
from bench.report.picture import Picture

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
        mistakes.gain(summary),
        mistakes.matrix(evidence, summary),
        mistakes.pairs(evidence, summary),
        tuning.progress(evidence, summary),
        tuning.hyperparameters(evidence, summary),
        stages.moved(evidence),
    ]
    return [picture for picture in drawn if picture is not None]
