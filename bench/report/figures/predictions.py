"""Figures of some tasks: the best, median and worst test image of each strategy; the score by class."""

import io
import json

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.data.mask_colours import colours
from bench.report.figures.base import Picture, take
from bench.report.figures.style import (
    MUTED,
    SMALL,
    WIDE,
    WIDTH,
    look,
    short,
)
from bench.study.tasks import TASKS

RANKS = ("best", "median", "worst")
NAME, SWATCH, LETTER = (
    20,
    0.5,
    0.065,
)  # of the legend: most letters of a class; inches of its colour, of a letter


def examples(evidence: Evidence, summary: Summary) -> Picture | None:
    """A row for each strategy: image, truth and prediction of three test images of its first seed."""
    seeds = {name: seed for name, seed, _ in sorted(evidence.examples, reverse=True)}
    shown = [result.strategy for result in summary.results if result.strategy in seeds]
    if not shown:
        return None
    figure = Figure(figsize=(WIDE, 0.8 + 0.95 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(RANKS), squeeze=False)
    rows: list[tuple[str, int, str, str, float]] = []
    classes: list[str] = []
    for line, strategy in zip(grid, shown, strict=True):
        for axes, rank in zip(line, RANKS, strict=True):
            with Image.open(io.BytesIO(evidence.examples[strategy, seeds[strategy], rank])) as picture:
                classes, image = json.loads(picture.info["classes"]), str(picture.info["image"])
                axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
            rows.append(
                (strategy, seeds[strategy], rank, image, _iou(evidence, strategy, seeds[strategy], image))
            )
            axes.set_title(f"{rank}, mean IoU {rows[-1][-1]:.2f}", fontsize=SMALL, pad=3)
            _bare(axes)
        line[0].set_ylabel(short(strategy, 17), fontsize=SMALL, color=look(strategy).colour)
    _name_colours(figure, classes)
    data = pd.DataFrame(rows, columns=["strategy", "seed", "rank", "image", "mean_iou"])
    words = "; ".join(f"{r.strategy} {r.rank} {r.mean_iou:.2f}" for r in data.itertuples())
    return take(
        figure,
        data,
        name="examples",
        title="Best, median and worst test images",
        caption="Each picture: the image, its true mask, the predicted mask where there is a label. Of the "
        "first seed of each strategy, by the mean IoU of the image alone. White: no label, counted nowhere.",
        alt=f"Image, truth and prediction side by side, with the image's mean IoU: {words}.",
        wide=True,
    )


def score_by_class(evidence: Evidence, summary: Summary) -> Picture | None:
    """The score of each class: a row for the class, a marker for each strategy."""
    if not summary.classes:
        return None
    score = TASKS[evidence.study.task].class_score
    names = [result.strategy for result in summary.results]
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
        caption=f"On test, {TASKS[evidence.study.task].class_score_in_words}; mean over seeds; the classes "
        "that show most first.",
        alt=f"{score} by class and strategy, lowest to highest class: {words}.",
    )


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
