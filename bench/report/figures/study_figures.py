"""The figures of a study, in the order in which they are shown."""

from collections.abc import Callable

from bench import __version__
from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.report.figures import cost, errors_by_class, predictions, results, stages, tuning
from bench.report.figures.base import Drawing, Picture, Stamp, rendered
from bench.study.schema import Study
from bench.study.tasks import TASKS
from bench.study_record.provenance import without_folders

Draw = Callable[[Evidence, Summary], Drawing | None]
FIGURES: dict[str, Draw] = {
    "accuracy": results.accuracy,
    "cost": lambda _evidence, summary: cost.cost(summary),
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
    return rendered(drawn, stamp_of(evidence, summary))


def stamp_of(evidence: Evidence, summary: Summary) -> Stamp:
    """Return what the figures of a study say of their origin."""
    study, seeds = evidence.study, max((result.done for result in summary.results), default=0)
    images = f"{summary.images:,} test image{'s' if summary.images != 1 else ''}"
    counted = f"{images}, {seeds} seed{'s' if seeds != 1 else ''}"
    return Stamp(f"{of_what(study)} \N{MIDDLE DOT} {counted}", footer(study.name, evidence.date))


def of_what(study: Study) -> str:
    """Return the model, and the data that it is transferred to."""
    return f"{study.source.model.partition('/')[2]} > {without_folders(study.target.data)}"


def footer(name: str, date: str) -> str:
    """Return whose report a figure is of."""
    return " \N{MIDDLE DOT} ".join(filter(None, (name, f"bench {__version__}", date)))
