"""A study for data that come without one: its name, question, image size, labels and scenario.

What is chosen follows from the data and the machine, and not from a clock: the same command has to find what
it did before.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.core.text import one_line
from bench.data import loading, splits
from bench.data.dataset import Dataset, Split
from bench.data.picture_sizes import count_pictures, typical_size
from bench.data.sources.table import METADATA
from bench.experiment.time_budget import PRUNED, Images, TimeLimit, fit_to_minutes
from bench.study.allowance import DEFAULT_STEPS
from bench.study.budgets import Budget
from bench.study.loading import resolve, safe_name
from bench.study.schema import Scenario, Study, Target, Training, Tuning, with_changes
from bench.study.tasks import TASKS
from bench.system.accelerators import may_have_gpu
from bench.system.hardware import usable_cpus

SOURCE = {"model": "timm/tf_efficientnet_lite0", "weights": "packaged"}  # nothing has to be downloaded
OF_TASK: Mapping[str, Mapping[str, Any]] = {"segmentation": {"training": {"batch_size": 8, "dice": 1}}}
LONGEST, DIGITS = 40, 8  # letters of the data's name, digits of their digest
PATIENCE = 3600.0  # seconds that training may take where there is no GPU
# What a processor trains in a second, all stages of SOURCE: two take 2.76 s for 600 images of 64 px
# (reports/performance/scaling.csv).
PIXELS_A_SECOND = 600 * 64**2 / 2.76 / 2
TRAIN_ALL = 3  # of the default strategies train all stages; the others take little beside these
LEAST_SIDE, STRIDE = 64, 32  # pixels: of the smallest side a map of 2 x 2 is left
SIDES = range(LEAST_SIDE, Target.model_fields["image_size"].default + 1, STRIDE)
VAL_LABELS = 1000  # to choose by; every evaluation looks at all of them
LARGE = 200  # labels for each class: large_different has as many, and the largest of the small studies 150
NO_RULE = "no rule of thumb is judged: likeness to the source's images is not measured"
QUANTILE = 1.96  # of the normal distribution, for an interval of 95 %


@dataclass(frozen=True)
class MadeUp:
    """A study, and what was chosen for it: what, and why, in words. Nothing for one from a file."""

    study: Study
    chosen: tuple[tuple[str, str], ...] = ()


def draft(data: Path, overrides: Sequence[str], budget: Budget) -> Study:
    """Return the study of a folder or table as far as it is known before any image is opened."""
    task = loading.task_at(data)
    values = {
        "name": safe_name(_name_of(data)[:LONGEST], "data"),
        "question": "",  # which model it is about may be set
        "task": task,
        "source": SOURCE,
        "target": {"data": str(data)},
        **OF_TASK.get(task, {}),
    }
    study = resolve(values, str(data), overrides, budget)
    return study if study.question else with_changes(study, question=_question(study.source.model, data))


def fitted(study: Study, given: Collection[str], limit: TimeLimit | None = None) -> MadeUp:
    """Return a drafted study with what its images decide, under a name of its own.

    Args:
        study: as `draft` made it.
        given: keys of the settings that somebody has chosen, which stay as they are.
        limit: what it may take; None: as long as the default budget does, images being no larger than that
            they take about an hour.
    """
    chosen = [("task", f"{study.task}: {TASKS[study.task].summary}")]
    if limit:
        study, words = _in_time(study, given, limit)
        chosen.append(("time", words))
    target = study.target
    if not limit and "target.image_size" not in given:
        side, why = _choose_side(Path(target.data))
        target = with_changes(target, image_size=side)
        chosen.append(("size", f"{side} px: {why}"))
    dataset = loading.load(target, task=study.task)
    parts = splits.split(dataset, target, 0)
    most = {
        name: count for name, count in _most_labels(study, parts).items() if f"target.{name}" not in given
    }
    target = with_changes(target, **most)
    chosen.append(("labels", _labels_in_words(parts, splits.split(dataset, target, 0))))
    study = with_changes(study, target=target)
    if "scenario" not in {key.partition(".")[0] for key in given} and TASKS[study.task].one_class:
        study, why = _with_scenario(study, dataset)
        chosen += [("scenario", why), ("rule", NO_RULE)]
    return MadeUp(with_digest(study, dataset), tuple(chosen))


def _in_time(study: Study, given: Collection[str], limit: TimeLimit) -> tuple[Study, str]:
    """Return a drafted study with as much of everything as fits into a time, and that in words."""
    data, target = Path(study.target.data), study.target
    width, height = typical_size(data)
    shown = [side for side in SIDES if side <= min(width, height)] or [SIDES[0]]
    sides = [target.image_size] if "target.image_size" in given else shown[::-1]
    count, test = count_pictures(data), target.test_fraction
    images = Images(
        train=round(count * (1 - test) * (1 - target.val_fraction)),
        val=min(VAL_LABELS, round(count * (1 - test) * target.val_fraction)),
        test=min(_precise(study), round(count * test)),
    )
    return fit_to_minutes(study, limit, given, sides, images)


def moved(study: Study, dataset: Dataset, given: Collection[str]) -> Study:
    """Return a study that was written for other data, asking of these what it asked of those."""
    data = Path(study.target.data)
    changes: dict[str, Any] = {"name": f"{study.name}-{safe_name(_name_of(data)[:LONGEST], 'data')}"}
    if "question" not in given:
        changes["question"] = _question(study.source.model, data)
    study = with_changes(study, **changes)
    if "scenario" in {key.partition(".")[0] for key in given}:
        return study
    if study.scenario is None:
        return study
    return _with_scenario(study, dataset)[0]


def with_digest(study: Study, dataset: Dataset) -> Study:
    """Return a study whose name says which data it is on: no two data sets share what is named after it."""
    return with_changes(study, name=f"{study.name}-{dataset.digest[:DIGITS]}")


def _name_of(data: Path) -> str:
    """Return what a person calls the data: a folder's name, or a table's."""
    if data.name == METADATA:
        return data.parent.name
    return data.name if data.is_dir() or data.suffix != ".csv" else data.stem


def _question(model: str, data: Path) -> str:
    images = one_line(_name_of(data)) or "these images"
    return f"What is the best way to use {model.partition('/')[2]} on {images}?"


def _choose_side(data: Path) -> tuple[int, str]:
    """Return the side of the square that a model is shown, in pixels, and why that."""
    width, height = typical_size(data)
    images = f"the images have {width} x {height} px in the median"
    fits = max((side for side in SIDES if side <= min(width, height)), default=SIDES[0])
    in_time = SIDES[-1] if may_have_gpu() else _side_in_time()
    side = max(SIDES[0], min(fits, in_time))
    if side == SIDES[-1]:
        return side, f"as in pretraining; {images}"
    if fits <= in_time:
        return side, f"{images}, so more would show nothing more"
    cpus = usable_cpus()
    processors = "one processor" if cpus == 1 else f"{cpus} processors"
    return side, f"for about an hour on {processors}; {images}"


def _side_in_time() -> int:
    """Return the side at which a study at the default budget takes PATIENCE on this machine's processors."""
    trials = Tuning().trials * Study.model_fields["seeds"].default
    images = TRAIN_ALL * trials * (1 - PRUNED) * DEFAULT_STEPS * Training().batch_size
    side = math.sqrt(PATIENCE * PIXELS_A_SECOND * usable_cpus() / images)
    return round(side / STRIDE) * STRIDE


def _most_labels(study: Study, parts: Split) -> dict[str, int]:
    """Return limits to the images of each part that has more than are of use."""
    training = study.training
    shown = len(parts.train) if training.epochs else (training.steps or DEFAULT_STEPS) * training.batch_size
    limits = {"train_labels": (parts.train, shown), "val_labels": (parts.val, VAL_LABELS)}
    limits["test_labels"] = (parts.test, _precise(study))
    return {name: most for name, (part, most) in limits.items() if len(part) > most}


def _precise(study: Study) -> int:
    """Return how many test images make an interval no wider than what matters."""
    return round((QUANTILE * 0.5 / study.smallest_effect) ** 2)


def _labels_in_words(whole: Split, taken: Split) -> str:
    there = {"to train on": whole.train, "to choose by": whole.val, "to test on": whole.test}
    used = (taken.train, taken.val, taken.test)
    words = [
        f"{len(some):,} {'' if len(some) == len(every) else f'of {len(every):,} '}{purpose}"
        for some, (purpose, every) in zip(used, there.items(), strict=True)
    ]
    return ", ".join(words)


def _with_scenario(study: Study, dataset: Dataset) -> tuple[Study, str]:
    """Return a study with the half of its scenario that can be known, and in words what that rests on."""
    labels = len(splits.split(dataset, study.target, 0).train) // len(dataset.classes)
    size: Literal["small", "large"] = "large" if labels >= LARGE else "small"
    said = f"{size}: about {labels:,} labels for each class ({LARGE} or more are large)"
    return with_changes(study, scenario=Scenario(size=size, similarity=None)), said
