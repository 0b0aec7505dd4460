"""The figures of a study, in the order in which they are shown."""

from collections.abc import Callable

from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.report.figures import errors_by_class, predictions, results, stages, tuning
from bench.report.figures.base import Picture
from bench.study.tasks import TASKS

Draw = Callable[[Evidence, Summary], Picture | None]
FIGURES: dict[str, Draw] = {
    "accuracy": results.accuracy,
    "cost": lambda _evidence, summary: results.cost(summary),
    "curves": results.curves,
    "examples": predictions.examples,
    "score_by_class": predictions.score_by_class,
    "gain_by_class": errors_by_class.gain,
    "confusion": errors_by_class.matrix,
    "confused_pairs": errors_by_class.pairs,
    "tuning": tuning.progress,
    "hyperparameters": tuning.hyperparameters,
    "stages": lambda evidence, _summary: stages.moved(evidence),
}
OF_SOME = frozenset(name for task in TASKS.values() for name in task.figures)  # the others are of every task
# Every figure that a report may have; one that is not drawn this time is removed from its folder.
NAMES = (*FIGURES, "iou_by_class")  # the last: of earlier reports


def of_study(evidence: Evidence, summary: Summary) -> list[Picture]:
    """Return the figures of a study, as far as there is something to draw."""
    task = TASKS[evidence.study.task]
    drawn = (
        draw(evidence, summary)
        for name, draw in FIGURES.items()
        if name not in OF_SOME or name in task.figures
    )
    return [picture for picture in drawn if picture is not None]
