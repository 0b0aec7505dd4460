"""What a model is to get right: one record for each task.

All that a task decides stands in its record, or in the module of its name in `data/tasks` (where its data
come from), `training/targets` (loss, scores, table of predictions), `analysis/predictions` (that table read
again) and `export/answers` (what is said of a picture). Its heads are in `models/heads`, its metrics in
`study/metrics`.
"""

from dataclasses import dataclass

from bench.core.registry import Registry
from bench.study.metrics import IOU, PRECISION, ClassStatistic, ShareRight


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        name: what a study says, and the name of the task's module in each room.
        summary: one line.
        heads: the kinds of heads that fit; the first is the default.
        class_statistic: what a result by class is.
        class_score: the same as an axis names it.
        class_score_in_words: the same in a caption, with what the number beside a class counts.
        class_title: of the table of results by class.
        settings: of a study, that no other task has: dotted names.
        figures: of the report, beside those that every task has.
        one_class: whether an image has one class, so that classes are confused and images counted as labels.
        keeps_pictures: whether a run keeps pictures of some of its predictions.
    """

    name: str
    summary: str
    heads: tuple[str, ...]
    class_statistic: ClassStatistic
    class_score: str
    class_score_in_words: str
    class_title: str
    settings: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    one_class: bool = False
    keeps_pictures: bool = False


TASKS: Registry[Task] = Registry("task")
TASKS.add(
    Task(
        "classification",
        "a class for each image",
        heads=("linear", "concat_pool"),
        class_statistic=ShareRight(),
        class_score="share right",
        class_score_in_words="the share of each class's test images (their number in brackets) that is right",
        class_title="Share of each class's test images that is right",
        settings=("training.class_weights", "target.fit"),
        figures=("confusion", "confused_pairs"),
        one_class=True,
    )
)
TASKS.add(
    Task(
        "segmentation",
        "a class for each pixel",
        heads=("unet", "fcn32s"),
        class_statistic=IOU,
        class_score="IoU",
        class_score_in_words="the IoU of each class (in brackets: how many test images show it)",
        class_title="IoU of each class, mean over seeds",
        settings=("training.dice", "target.classes", "target.ignore"),
        figures=("examples", "score_by_class"),
        keeps_pictures=True,
    )
)
TASKS.add(
    Task(
        "multilabel",
        "any number of classes for each image",
        heads=("linear", "concat_pool"),
        class_statistic=PRECISION,
        class_score="average precision",
        class_score_in_words="the average precision of each class (in brackets: its test images)",
        class_title="Average precision of each class, mean over seeds",
        settings=("target.fit",),
        figures=("score_by_class",),
    )
)
