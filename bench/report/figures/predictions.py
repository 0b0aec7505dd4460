"""Figures of some tasks: what each strategy predicts for the same test images; the score by class."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.data.mask_colours import colours
from bench.report.figures.base import Drawing, take
from bench.report.figures.style import (
    INK,
    MUTED,
    SMALL,
    WIDTH,
    look,
    short,
)
from bench.study.tasks import TASKS

NAME, SWATCH, LETTER = (
    20,
    0.5,
    0.065,
)  # of the legend: most letters of a class; inches of its colour, of a letter


def examples(evidence: Evidence, summary: Summary) -> Drawing | None:
    """Some test images, their truth, and what each strategy's first seed predicts for them, in a row each."""
    shown = _common_examples(evidence, [result.strategy for result in summary.ranked])
    if not shown.images:
        return None
    rows = ["image", "truth", *shown.strategies]
    columns = len(shown.images)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.15 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    data = []
    for column, image in enumerate(shown.images):
        for line, row in zip(grid, rows, strict=True):
            strategy = row if row in shown.strategies else shown.strategies[0]
            picture = shown.pictures[strategy, image]
            tile = _tile(picture, {"image": 0, "truth": 1}.get(row, 2))
            line[column].imshow(tile, interpolation="nearest")
            _bare(line[column])
            if row in shown.strategies:
                iou = _iou(evidence, row, shown.seeds[row], image)
                line[column].set_title(f"mean IoU {iou:.2f}", fontsize=SMALL, pad=3)
                data.append((row, shown.seeds[row], image, iou))
    for line, row in zip(grid, rows, strict=True):
        colour = look(row).colour if row in shown.strategies else INK
        line[0].set_ylabel(short(row, 17), fontsize=SMALL, color=colour)
    _name_colours(figure, shown.classes)
    table = pd.DataFrame(data, columns=["strategy", "seed", "image", "mean_iou"])
    means = table.groupby("strategy", sort=False)["mean_iou"].mean()
    words = "; ".join(f"{name} {', '.join(f'{v:.2f}' for v in own)}" for name, own in _by_strategy(table))
    return take(
        figure,
        table,
        name="examples",
        title="The same test images for every strategy",
        finding=f"On these images {means.idxmax()} comes closest to the truth: mean IoU {means.max():.2f}",
        caption="Images that were not chosen by any result. Predictions of the first seed of each strategy, "
        "with the mean IoU of the image alone. White: no label, counted nowhere.",
        alt=f"Predictions for the same {columns} images, with the image's mean IoU: {words}.",
    )


@dataclass(frozen=True)
class _Shown:
    """The strategies and images of which all pictures are there, and these, by strategy and image."""

    strategies: Sequence[str]
    images: Sequence[str]
    seeds: Mapping[str, int]
    classes: list[str]
    pictures: Mapping[tuple[str, str], np.ndarray]


def _common_examples(evidence: Evidence, order: Sequence[str]) -> _Shown:
    """Return what can be set side by side: of each strategy's first seed, the images that all have."""
    seeds = {name: seed for name, seed, _ in sorted(evidence.examples, reverse=True)}
    strategies = [name for name in order if name in seeds]
    pictures: dict[tuple[str, str], np.ndarray] = {}
    classes: list[str] = []
    for (name, seed, _), content in sorted(evidence.examples.items()):
        if name in strategies and seed == seeds[name]:
            with Image.open(io.BytesIO(content)) as picture:
                classes = json.loads(picture.info["classes"])
                pictures[name, str(picture.info["image"])] = np.asarray(picture.convert("RGB"))
    of_each = [{image for name, image in pictures if name == strategy} for strategy in strategies]
    images = sorted(set.intersection(*of_each)) if of_each else []
    return _Shown(strategies, images, seeds, classes, pictures)


def _tile(picture: np.ndarray, place: int) -> np.ndarray:
    """Return the image, the truth or the prediction of a picture that has them side by side."""
    side = picture.shape[0]
    left = (0, (picture.shape[1] - side) // 2, picture.shape[1] - side)[place]
    return picture[:, left : left + side]


def _by_strategy(table: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return [(str(name), own.tolist()) for name, own in table.groupby("strategy", sort=False)["mean_iou"]]


def score_by_class(evidence: Evidence, summary: Summary) -> Drawing | None:
    """The score of each class: a row for the class, a marker for each strategy."""
    if not summary.classes:
        return None
    score = TASKS[evidence.study.task].class_score
    names = [result.strategy for result in summary.ranked]
    data = pd.DataFrame(
        [(c.name, name, c.recall[name]) for c in summary.classes for name in names if name in c.recall],
        columns=["class", "strategy", "score"],
    )
    figure = Figure(figsize=(WIDTH, 1.0 + 0.25 * len(summary.classes)), layout="constrained")
    axes = figure.add_subplot()
    places = {c.name: row for row, c in enumerate(summary.classes)}
    for strategy, own in data.groupby("strategy", sort=False):
        style = look(str(strategy))
        rows = [places[name] for name in own["class"]]
        axes.plot(
            own["score"],
            rows,
            style.marker,
            color=style.colour,
            label=strategy,
            markersize=6,
            markeredgecolor="white",
        )
    axes.set_yticks(range(len(places)), [short(name, 20) for name in places])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(f"{score} on test, mean over seeds")
    figure.legend(loc="outside upper center", ncols=5, fontsize=SMALL, frameon=False, handletextpad=0.2)
    words = "; ".join(
        f"{name} {own['score'].min():.2f} to {own['score'].max():.2f}"
        for name, own in data.groupby("strategy", sort=False)
    )
    return take(
        figure,
        data,
        name="score_by_class",
        title=f"{score} by class",
        finding=_hardest(data, score),
        caption=f"On test, {TASKS[evidence.study.task].class_score_in_words}; mean over seeds; the classes "
        "that show most first.",
        alt=f"{score} by class and strategy, lowest to highest class: {words}.",
    )


def _hardest(data: pd.DataFrame, score: str) -> str:
    """Say which class is hardest for whoever is best at it."""
    best = data.groupby("class", sort=False)["score"].max()
    if best.empty:
        return ""
    return f"{short(str(best.idxmin()))} is the hardest class: {score} {best.min():.2f} at best"


def _name_colours(figure: Figure, classes: list[str]) -> None:
    patches = [
        Patch(color=tuple(colour / 255), label=short(name, NAME))
        for name, colour in zip(classes, colours(len(classes)), strict=True)
    ]
    patches.append(Patch(facecolor="white", edgecolor=MUTED, label="no label"))
    longest = max(len(str(patch.get_label())) for patch in patches)
    columns = max(1, int(figure.get_figwidth() / (SWATCH + LETTER * longest)))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)


def _iou(evidence: Evidence, strategy: str, seed: int, image: str) -> float:
    """Return the mean IoU of one image, over the classes that its truth shows."""
    frame = evidence.predictions
    mine = (frame["strategy"] == strategy) & (frame["seed"] == seed)
    rows = frame[mine & (frame["image"] == image) & (frame["truth"] > 0)]
    return float((rows["intersection"] / (rows["truth"] + rows["predicted"] - rows["intersection"])).mean())


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
