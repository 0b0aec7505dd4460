"""Figures of the outcome: accuracy by strategy, accuracy against cost, learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.analysis.evidence import Evidence, of_done
from bench.analysis.results import Result
from bench.analysis.summary import Summary
from bench.core.text import plain
from bench.report import tables
from bench.report.figures.base import Drawing, Point, take
from bench.report.figures.label_layout import Label, label_right
from bench.report.figures.style import (
    GRID,
    INK,
    MANY,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    look,
)
from bench.study.metrics import METRICS

MANY_DECADES = 2000.0  # highest over lowest; beyond it only powers of ten are written on the axis
COST_COLUMNS = (
    *("strategy", "value", "low", "high"),
    *("cached_seconds", "uncached_seconds", "with_tuning_seconds"),
)
SEEDS_BELOW = 0.27  # rows
FAR = 0.15  # behind the best: such a strategy would set the scale and hide how the others differ
ROOM = 0.15  # of what the others take, left below them
CHEAPER = 1.2  # times: less is no difference in cost
BESIDE = ("axes fraction", "data")  # x as a share of the axes, y in rows
COSTS = {  # what is counted, to how its marker is filled
    "one run, frozen features at hand": "full",
    "one run, frozen features computed": "left",
    "with all trials": "none",
}


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


def name_seconds(axes: Axes) -> None:
    """Write plain seconds on a logarithmic axis."""
    low, high = axes.get_xlim()
    digits = (1.0, 2.0, 5.0) if high / low < MANY_DECADES else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=20))
    plain_numbers(axes.xaxis)
    axes.grid(axis="x", color=GRID)


def plain_numbers(axis: Axis) -> None:
    """Write 0.001 and 1,000 on a logarithmic axis, which by default has powers of ten in TeX."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())
