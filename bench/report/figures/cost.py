"""The figure of accuracy against cost."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.summary import Summary
from bench.report import tables
from bench.report.figures.axis_numbers import name_seconds
from bench.report.figures.base import Drawing, Point, take
from bench.report.figures.label_layout import Label
from bench.report.figures.results import FAR, ROOM, far_behind, finish, metric_name
from bench.report.figures.style import MUTED, PAPER, WIDTH, look
from bench.study.metrics import METRICS

COST_COLUMNS = (
    *("strategy", "value", "low", "high"),
    *("cached_seconds", "uncached_seconds", "with_tuning_seconds"),
)
CHEAPER = 1.2  # times: less is no difference in cost
COSTS = {  # what is counted, to how its marker is filled
    "one run, frozen features at hand": "full",
    "one run, frozen features computed": "left",
    "with all trials": "none",
}


def cost(summary: Summary) -> Drawing:
    """Seconds against the test metric: with frozen features at hand, without, and with the tuning."""
    metric = metric_name(summary)
    data = _costs(summary)
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.add_subplot()
    sign = METRICS[summary.metric].sign
    far = data["strategy"].isin(far_behind(summary))
    labels = _draw_costs(axes, data, far, sign)
    points = [
        Point(axes, x, value, f"{name}, {what}: {tables.seconds(x)} s, {value:.3f}")
        for name, value, _, _, *xs in _rows(data[~far])
        for x, what in zip(xs, COSTS, strict=True)
    ]
    front = data[data["on_front"]].sort_values("uncached_seconds")
    if len(front) > 1:
        axes.plot(front["uncached_seconds"], front["value"], color=MUTED, linewidth=1.5, alpha=0.6, zorder=1)
    if len(data):
        axes.set_xscale("log")
        name_seconds(axes)
    figure.legend(
        handles=[
            Line2D([], [], linestyle="", label=text, **_marker("o", MUTED, fill))
            for text, fill in COSTS.items()
        ],
        loc="outside upper left",
        ncols=2,
        handletextpad=0.2,
        columnspacing=1,
    )
    axes.set_xlabel("seconds (log scale)")
    axes.set_ylabel(f"test {metric}")
    finish(axes, labels)
    words = "; ".join(
        f"{name} {tables.seconds(cached)} s with features at hand, {tables.seconds(computed)} s without, "
        f"{tables.seconds(tuned)} s with all trials"
        for name, _, _, _, cached, computed, tuned in _rows(data)
    )
    edge, top = ("lower", "highest") if sign > 0 else ("upper", "lowest")
    below = f" On the {edge} edge, with its value: more than {FAR:g} behind the {top}." if far.any() else ""
    line = (
        " Grey line: the Pareto front of single runs that compute all; no strategy is both cheaper and "
        "better than one on it."
    )
    return take(
        figure,
        data,
        points=points,
        name="cost",
        title=f"Cost against test {metric}",
        finding=_dearest(data),
        caption="Seconds of training and evaluation. Filled: one final run that finds its frozen "
        "features in the store. Half filled: one that computes them, with the 95 % interval of its score; "
        "the same where nothing is frozen. Hollow: all trials of a seed, the best of which it is; frozen "
        f"features are computed once.{below}{line if len(front) > 1 else ''}",
        alt=f"Seconds against test {metric}: {words or 'nothing is known'}.",
    )


def _dearest(data: pd.DataFrame) -> str:
    """Say by how much the dearest strategy costs more than the cheapest."""
    if len(data) < 2:
        return ""
    by_cost = data.sort_values("with_tuning_seconds", kind="stable")
    first, last = by_cost.iloc[0], by_cost.iloc[-1]
    times = last["with_tuning_seconds"] / first["with_tuning_seconds"]
    if times < CHEAPER:
        return "All strategies cost about as much"
    dearer = f"{times:,.{0 if times >= 10 else 1}f} times the seconds of {first['strategy']}"
    return f"{last['strategy']} takes {dearer}"


def _costs(summary: Summary) -> pd.DataFrame:
    """Return value and seconds of each strategy that has both, and whether it is on the Pareto front."""
    rows = [
        (
            result.strategy,
            result.test_mean,
            result.test.low if result.test else result.test_mean,
            result.test.high if result.test else result.test_mean,
            result.cached_seconds or result.uncached_seconds,
            result.uncached_seconds,
            result.seconds,
        )
        for result in summary.results
        if result.test_mean is not None and result.uncached_seconds
    ]
    data = pd.DataFrame(rows, columns=list(COST_COLUMNS)).astype(dict.fromkeys(COST_COLUMNS[1:], float))
    scores = METRICS[summary.metric].sign * data["value"]
    points = list(zip(data["uncached_seconds"], scores, strict=True))
    front = pareto(points)
    return data.assign(on_front=pd.Series([point in front for point in points], dtype=bool))


def _rows(data: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(data[column].tolist() for column in COST_COLUMNS), strict=True))


def _draw_costs(axes: Axes, data: pd.DataFrame, far: "pd.Series[bool]", sign: int) -> list[Label]:
    """Draw each strategy, those far behind on the edge, so that they don't set the scale."""
    near = data[~far]
    if far.any():
        low, high = near["low"].min(), near["high"].max()
        edge = ROOM * (high - low)
        under, over = (edge, edge / 2)[::sign]
        axes.set_ylim(low - under, high + over)
    labels = []
    for (name, value, low, high, *xs), below in zip(_rows(data), far, strict=True):
        style, y = look(name), axes.get_ylim()[0 if sign > 0 else 1] if below else value
        if not below:
            axes.plot((xs[1],) * 2, (low, high), color=style.colour, linewidth=2.5, alpha=0.3)
        (line,) = axes.plot((xs[0], xs[-1]), (y, y), color=style.colour, linewidth=0.9, clip_on=not below)
        line.set_linestyle((0, (2, 2)))
        for x, fill in reversed(list(zip(xs, COSTS.values(), strict=True))):
            axes.plot(x, y, **_marker(style.marker, style.colour, fill), clip_on=not below, zorder=3)
        labels.append(Label(xs[-1], y, f"{name} {value:.3f}" if below else name, style.colour))
    return labels


def _marker(marker: str, colour: str, fill: str) -> dict[str, Any]:
    """Return a marker that is filled, filled on the left, or hollow."""
    return {
        "marker": marker,
        "fillstyle": "full" if fill == "none" else fill,
        "markerfacecolor": PAPER if fill == "none" else colour,
        "markerfacecoloralt": PAPER,
        "markeredgecolor": colour,
        "markersize": 7,
    }


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, score: higher is better) that no other beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for spent, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((spent, value))
    return front
