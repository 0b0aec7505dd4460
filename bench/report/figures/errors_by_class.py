"""Figures of the mistakes: confusion of classes, confused pairs with their images, gain by class."""

import io

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image, UnidentifiedImageError

from bench.analysis.comparisons import signed
from bench.analysis.errors_by_class import Confused, confusion
from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.report.figures.base import Drawing, take
from bench.report.figures.results import metric_name, name_rows
from bench.report.figures.style import (
    GRID,
    MUTED,
    SMALL,
    WIDTH,
    ink_on,
    look,
    shades,
    short,
)
from bench.study.tasks import TASKS

CLASSES = 20  # drawn in the matrix: those most confused
WRITTEN = 12  # classes up to which the shares are written into the cells
PAIRS = 6
BARS = 24  # classes drawn by gain: the highest and the lowest


def matrix(evidence: Evidence, summary: Summary) -> Drawing | None:
    """The confusion matrix of the best strategy; None without predictions."""
    counts = confusion(evidence, summary.best) if summary.best else pd.DataFrame()
    if counts.empty:
        return None
    names, classes = _most_confused(counts)
    shown = _shares(counts, names)
    side = 1.3 + min(3.0, 0.42 * len(names))
    figure = Figure(figsize=(WIDTH, side), layout="constrained")
    axes = figure.add_subplot()
    written = len(names) <= WRITTEN
    sns.heatmap(
        shown,
        ax=axes,
        cmap=shades(),
        vmin=0,
        vmax=1,
        linewidths=0.5,
        linecolor=GRID,
        xticklabels=[short(name, 16) for name in names],
        yticklabels=[short(name, 16) for name in names],
        cbar_kws={"label": "share of the class's predictions", "aspect": 30, "pad": 0.02},
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=90 if len(names) > 3 else 0)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if written:
        _write_shares(axes, shown)
    every = "" if len(names) == classes else f" The {len(names)} most confused of {classes:,} classes."
    return take(
        figure,
        counts,
        name="confusion",
        title=f"What {summary.best} confuses",
        finding=_most_often(summary.confused[0]) if summary.confused else "",
        caption=f"Test images, all seeds: of each class (row) the share taken as each (column).{every}",
        alt="Confusion matrix. Most confused: "
        + ("; ".join(_pair_words(p) for p in summary.confused[:5]) or "none")
        + ".",
    )


def _most_confused(counts: pd.DataFrame) -> tuple[list[str], int]:
    """Return the classes that are drawn, in the order of their names, and how many there are."""
    classes = np.union1d(counts["target"], counts["prediction"])
    wrong = counts[counts["target"] != counts["prediction"]]
    mistakes = sum(
        wrong.groupby(side)["predictions"].sum().reindex(classes, fill_value=0).to_numpy()
        for side in ("target", "prediction")
    )
    order = np.argsort(-np.asarray(mistakes), kind="stable")[:CLASSES]
    return [str(name) for name in classes[np.sort(order)]], len(classes)


def _shares(counts: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return which share of each class's images was predicted as each class: shape (names, names)."""
    totals = counts.groupby("target")["predictions"].sum()
    among = counts[counts["target"].isin(names) & counts["prediction"].isin(names)]
    place = {name: number for number, name in enumerate(names)}
    shares = np.zeros((len(names), len(names)))
    rows, columns = (among[side].map(place).to_numpy() for side in ("target", "prediction"))
    shares[rows, columns] = among["predictions"] / totals.loc[among["target"]].to_numpy()
    return shares


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            place = (column + 0.5, row + 0.5)
            ink = ink_on(float(share))
            axes.text(*place, f"{share:.2f}", ha="center", va="center", fontsize=7, color=ink)


def _pair_words(pair: Confused) -> str:
    return f"{pair.share:.0%} of {short(pair.target)} taken for {short(pair.prediction)}"


def _most_often(pair: Confused) -> str:
    return f"{short(pair.target)} is most often taken for {short(pair.prediction)}: {pair.share:.0%}"


def pairs(evidence: Evidence, summary: Summary) -> Drawing | None:
    """The most confused pairs of classes as bars, with the images mistaken, where they are at hand."""
    shown = summary.confused[:PAIRS]
    if not shown:
        return None
    pictures = [[_opened(evidence.images.get(name)) for name in pair.examples] for pair in shown]
    columns = max(sum(picture is not None for picture in row) for row in pictures)
    figure = Figure(figsize=(WIDTH, 0.6 + (0.62 if columns else 0.36) * len(shown)), layout="constrained")
    grid = figure.add_gridspec(len(shown), 1 + columns, width_ratios=[3.6, *[1] * columns])
    bars = figure.add_subplot(grid[:, 0])
    colour = look(summary.best or "").colour
    bars.barh(range(len(shown)), [pair.share for pair in shown], 0.22 if columns else 0.3, color=colour)
    for row, pair in enumerate(shown):
        text = f"{short(pair.target, 17)} \N{RIGHTWARDS ARROW} {short(pair.prediction, 17)}  {pair.share:.0%}"
        bars.text(0, row - 0.32, text, fontsize=SMALL, va="center")
    bars.set_ylim(len(shown) - 0.6, -0.7)
    bars.set_xlim(0, max(pair.share for pair in shown) * 1.02)
    bars.set_yticks([])
    bars.xaxis.set_major_locator(MaxNLocator(4))
    bars.xaxis.set_major_formatter(PercentFormatter(1))
    bars.set_xlabel("share of the class's predictions")
    sns.despine(ax=bars, left=True)
    for row, found in enumerate(pictures):
        for column, picture in enumerate([p for p in found if p is not None], 1):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
    data = pd.DataFrame(
        [(p.target, p.prediction, p.predictions, p.share, "; ".join(p.examples)) for p in summary.confused],
        columns=["target", "prediction", "predictions", "share", "images"],
    )
    beside = " Beside: of the test images kept, those mistaken so by the most seeds." if columns else ""
    return take(
        figure,
        data,
        name="confused_pairs",
        title=f"The classes that {summary.best} confuses most",
        finding=_most_often(shown[0]),
        caption="Class \N{RIGHTWARDS ARROW} what it is taken for, with the share of its predictions, all "
        f"seeds together.{beside}",
        alt="; ".join(_pair_words(pair) for pair in shown) + ".",
    )


def _opened(picture: bytes | None) -> np.ndarray | None:
    if picture is None:
        return None
    try:
        with Image.open(io.BytesIO(picture)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError):
        return None


def gain(evidence: Evidence, summary: Summary) -> Drawing | None:
    """The gain of the best strategy over another by class; None where there is no other."""
    known = sorted(
        ((c, c.gain) for c in summary.classes if c.gain is not None),
        key=lambda pair: (-pair[1].value, pair[0].name),
    )
    if not known or summary.best is None or summary.gain_over is None:
        return None
    shown = known if len(known) <= BARS else [*known[: BARS // 2], *known[-(BARS // 2) :]]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.2 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    better, worse = look(summary.best).colour, look(summary.gain_over).colour
    for row, (_, found) in enumerate(shown):
        colour = better if found.value > 0 else worse if found.value < 0 else MUTED
        axes.barh(row, found.value, 0.6, color=colour, alpha=0.55)
        axes.plot((found.low, found.high), (row, row), color=colour, linewidth=1)
    name_rows(axes, [f"{short(c.name)} ({c.images})" for c, _ in shown])
    axes.axvline(0, color=MUTED, linewidth=0.8)
    task = TASKS[evidence.study.task]
    axes.set_xlabel(f"gain of {summary.best} over {summary.gain_over} in {task.class_score}")
    data = pd.DataFrame(
        [
            (c.name, c.images, c.recall[summary.best], c.recall[summary.gain_over], g.value, g.low, g.high)
            for c, g in known
        ],
        columns=["class", "images", summary.best, summary.gain_over, "gain", "low", "high"],
    )
    unseen = "; none where no image differs" if any(g.low == g.high for _, g in known) else ""
    left_out = (
        "" if len(shown) == len(known) else f" The {BARS // 2} highest and lowest of {len(known)} classes."
    )
    return take(
        figure,
        data,
        name="gain_by_class",
        title=f"Where {summary.best} gains over {summary.gain_over}",
        finding=f"{summary.best} gains most on {short(shown[0][0].name)} ({signed(shown[0][1].value)})",
        caption=f"Difference in {task.class_score_in_words}; "
        "line: 95 % interval, for the class alone and not corrected for the number of "
        f"classes{unseen}.{left_out}",
        alt=f"Gain in {metric_name(summary)} by class: highest {shown[0][0].name} {shown[0][1].value:+.2f}, "
        f"lowest {shown[-1][0].name} {shown[-1][1].value:+.2f}.",
    )
