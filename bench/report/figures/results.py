"""Figures of the outcome: accuracy by strategy, learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.evidence import Evidence, of_done
from bench.analysis.results import Result
from bench.analysis.summary import Summary
from bench.report import tables
from bench.report.figures.base import Drawing, Point, take
from bench.report.figures.label_layout import Label, label_right
from bench.report.figures.style import (
    INK,
    MANY,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    look,
)
from bench.study.metrics import METRICS

SEEDS_BELOW = 0.27  # rows
FAR = 0.15  # behind the best: such a strategy would set the scale and hide how the others differ
ROOM = 0.15  # of what the others take, left below them
BESIDE = ("axes fraction", "data")  # x as a share of the axes, y in rows


def metric_name(summary: Summary) -> str:
    """Return the metric as a person writes it."""
    return METRICS[summary.metric].label


def accuracy(evidence: Evidence, summary: Summary) -> Drawing:
    """Every seed, the mean and the 95 % interval of each strategy, with the numbers beside."""
    results, metric = summary.ranked, metric_name(summary)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    done, far = evidence.done, far_behind(summary)
    rows: list[tuple[Any, ...]] = []
    points: list[Point] = []
    for place, result in enumerate(results):
        mine = done[done["strategy"] == result.strategy]
        seeds = mine[f"test_{summary.metric}"].astype(float).tolist()
        if result.strategy not in far:
            draw_result(axes, place, result, seeds)
            points += _points_of(axes, place, result, dict(zip(mine["seed"], seeds, strict=True)))
        axes.annotate(
            describe(result),
            (1.02, place),
            xycoords=BESIDE,
            va="center",
            fontsize=SMALL,
            color=INK if result.test else MUTED,
            weight="bold" if result.strategy in summary.not_worse else "normal",
        )
        rows += [
            (result.strategy, "seed", seed, v, None, None)
            for seed, v in zip(mine["seed"], seeds, strict=True)
        ]
        if result.test:
            rows.append((result.strategy, "mean", None, result.test.value, result.test.low, result.test.high))
    put_on_the_edge(axes, results, far, METRICS[summary.metric].sign)
    name_rows(axes, [result.strategy for result in results])
    axes.set_xlabel(f"test {metric}")
    scores = "; ".join(f"{result.strategy} {tables.score(result)}" for result in results)
    return take(
        figure,
        points=points,
        data=pd.DataFrame(rows, columns=["strategy", "what", "seed", "value", "low", "high"]).astype(
            {"seed": "Int64"}
        ),
        name="accuracy",
        title=f"Test {metric} by strategy",
        finding=summary.finding,
        caption="Small dots: one per seed. Marker and bar: mean and 95 % interval over seeds and test "
        f"images together.{' Bold: not shown to be worse than the best.' * bool(summary.not_worse)}"
        f"{on_the_edge(far, METRICS[summary.metric].sign)}",
        alt=f"Mean test {metric} with 95 % interval: {scores}.",
    )


def _points_of(axes: Axes, place: float, result: Result, seeds: Mapping[int, float]) -> list[Point]:
    """Return what the page says of a strategy's row where it is pointed at."""
    points = [
        Point(axes, value, place + SEEDS_BELOW, f"{result.strategy}, seed {seed}: {value:.3f}")
        for seed, value in seeds.items()
    ]
    if result.test:
        points.append(Point(axes, result.test.value, place, f"{result.strategy}: {tables.score(result)}"))
    return points


def draw_result(axes: Axes, place: float, result: Result, seeds: Sequence[float]) -> None:
    """Draw one strategy on its row: interval as a bar, mean as its marker above, seeds as dots below."""
    style, many = look(result.strategy), len(seeds) > MANY
    axes.scatter(
        seeds,
        [place + SEEDS_BELOW] * len(seeds),
        s=9,
        color=style.colour,
        alpha=0.6,
        linewidths=0,
        rasterized=many,
    )
    if result.test:
        ends = (result.test.low, result.test.high)
        axes.plot(ends, (place, place), color=style.colour, linewidth=3, solid_capstyle="round", alpha=0.45)
        axes.plot(
            result.test.value, place, style.marker, color=style.colour, markersize=7, markeredgecolor=PAPER
        )


def far_behind(summary: Summary) -> list[str]:
    """Return the strategies so far behind that they would set the scale and hide how the others differ."""
    sign = METRICS[summary.metric].sign
    known = [result for result in summary.results if result.test_mean is not None]
    scores = {result.strategy: sign * float(result.test_mean or 0.0) for result in known}
    edge = max(scores.values(), default=0.0) - FAR
    near = [result for result in known if scores[result.strategy] >= edge]
    ends = [sign * end for r in near if r.test for end in (r.test.low, r.test.high)]
    lowest = min(ends) - ROOM * (max(ends) - min(ends)) if ends else edge  # where the axis ends
    return [name for name, score in scores.items() if score < min(edge, lowest)]


def put_on_the_edge(axes: Axes, results: Sequence[Result], far: Sequence[str], sign: int) -> None:
    """Draw those far behind on the edge of a figure with a row for each, so that they don't set its scale."""
    near = [r.test for r in results if r.strategy not in far and r.test]
    if not far or not near:
        return
    low, high = min(test.low for test in near), max(test.high for test in near)
    room = ROOM * ((high - low) or FAR)  # where nothing is known of the spread there is one value
    under, over = (room, room / 2)[::sign]
    axes.set_xlim(low - under, high + over)
    edge, marker = (0.02, "<") if sign > 0 else (0.98, ">")
    for place, result in enumerate(results):
        if result.strategy in far:
            colour, across = look(result.strategy).colour, axes.get_yaxis_transform()
            axes.plot(edge, place, marker, color=colour, markersize=7, transform=across)


def on_the_edge(far: Sequence[str], sign: int) -> str:
    """Say what an arrow on the edge of such a figure means; nothing where there is none."""
    side = "left" if sign > 0 else "right"
    return f" Arrow on the {side} edge: more than {FAR:g} behind the best." if far else ""


def name_rows(axes: Axes, strategies: Sequence[str]) -> None:
    """Name the rows of a horizontal figure, the first on top."""
    axes.set_yticks(range(len(strategies)), strategies)
    axes.set_ylim(len(strategies) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    sns.despine(ax=axes, left=True)


def describe(result: Result) -> str:
    """Return mean and interval, or why there is none."""
    if result.test_mean is not None:
        return tables.score(result)
    return f"no result: {result.failed} failed" if result.failed else "not run"


def curves(evidence: Evidence, summary: Summary) -> Drawing:
    """The validation metric by step: mean over seeds as a line, lowest to highest seed as a band."""
    metric, value = metric_name(summary), f"val_{summary.metric}"
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    known = of_done(evidence, evidence.curves)
    known = known.dropna(subset=[value]) if value in known else known.iloc[:0].assign(**{value: 0.0})
    data = (
        known.assign(step=known["step"].astype(int))
        .groupby(["strategy", "step"], sort=False)[value]
        .agg(mean="mean", low="min", high="max", seeds="count")
        .reset_index()
    )
    labels, points = [], []
    for strategy, mine in data.groupby("strategy", sort=False):
        style = look(str(strategy))
        axes.fill_between(
            mine["step"], mine["low"], mine["high"], color=style.colour, alpha=0.15, linewidth=0
        )
        marker = style.marker if len(mine) <= 40 else ""
        axes.plot(mine["step"], mine["mean"], color=style.colour, marker=marker, markersize=4, linewidth=1.4)
        points += [
            Point(axes, step, mean, f"{strategy}, step {step:,}: {mean:.3f} ({low:.3f} to {high:.3f})")
            for step, mean, low, high in mine[["step", "mean", "low", "high"]].itertuples(index=False)
        ]
        labels.append(
            Label(float(mine["step"].iloc[-1]), float(mine["mean"].iloc[-1]), str(strategy), style.colour)
        )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("optimisation steps")
    axes.set_ylabel(f"validation {metric}")
    finish(axes, labels)
    chosen = "default" if evidence.study.tuning.trials == 1 else "tuned"  # the first trial is the defaults
    return take(
        figure,
        data,
        points=points,
        name="curves",
        title=f"Validation {metric} by optimisation step",
        finding=_reached(data, summary),
        caption=f"Final runs with the {chosen} hyperparameters. Line: mean over seeds; band: lowest to "
        "highest seed.",
        alt=f"Learning curves: validation {metric}, first and last: {_ends(data) or 'nothing is known'}.",
    )


def _reached(data: pd.DataFrame, summary: Summary) -> str:
    """Say when the best strategy comes close to its highest value."""
    own = data[data["strategy"] == summary.best]
    if own.empty:
        return ""
    sign = METRICS[summary.metric].sign
    best = (sign * own["mean"]).max()
    near = own[sign * own["mean"] >= best - summary.margin].iloc[0]
    return f"{summary.best} is within {summary.margin:g} of its best after {int(near['step']):,} steps"


def _ends(data: pd.DataFrame) -> str:
    ends = data.groupby("strategy", sort=False)
    return "; ".join(
        f"{name} {own['mean'].iloc[0]:.3f} after {own['step'].iloc[0]:,} steps, "
        f"{own['mean'].iloc[-1]:.3f} after {own['step'].iloc[-1]:,}"
        for name, own in ends
    )


def finish(axes: Axes, labels: Sequence[Label], nothing: str = "no final run is done") -> None:
    """Grid, no box, labels beside; or a line that says there is nothing to draw."""
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
    if labels:
        label_right(axes, labels)
    else:
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", color=MUTED)
