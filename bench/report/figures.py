"""The figures of a study's report: accuracy by strategy, learning curves, cost against accuracy."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.analysis import Evidence, Result, Summary
from bench.report.style import GRID, INK, MUTED, WIDTH, Label, label_right, look
from bench.report.tables import score

MANY_DECADES = 2000.0  # highest over lowest; beyond it only powers of ten are written on the axis
BESIDE = ("axes fraction", "data")  # x as a share of the axes, y in rows


def metric_name(summary: Summary) -> str:
    """Return the metric as a person writes it."""
    return summary.metric.replace("_", " ")


def draw_accuracy(evidence: Evidence, summary: Summary) -> Figure:
    """Draw every seed, the mean and the 95 % interval of each strategy, with the numbers beside."""
    results = summary.results
    figure = Figure(figsize=(WIDTH, 1.5 + 0.58 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    done = evidence.done
    for place, result in enumerate(results):
        seeds = done.loc[done["strategy"] == result.strategy, f"test_{summary.metric}"]
        draw_result(axes, place, result, seeds.tolist())
        axes.annotate(
            describe(result),
            (1.02, place),
            xycoords=BESIDE,
            va="center",
            fontsize=10,
            color=INK if result.test else MUTED,
            weight="bold" if result.strategy in summary.level else "normal",
        )
    name_rows(axes, [result.strategy for result in results])
    axes.set_xlabel(f"test {metric_name(summary)}")
    return figure


def draw_result(axes: Axes, place: float, result: Result, seeds: Sequence[float]) -> None:
    """Draw one strategy on its row: interval as a bar, mean as its marker above, seeds as dots below."""
    style = look(result.strategy)
    axes.scatter(seeds, [place + 0.22] * len(seeds), s=16, color=style.colour, alpha=0.55, linewidths=0)
    if result.test:
        ends = (result.test.low, result.test.high)
        axes.plot(ends, (place, place), color=style.colour, linewidth=3, solid_capstyle="round", alpha=0.45)
        axes.plot(
            result.test.value, place, style.marker, color=style.colour, markersize=8, markeredgecolor="white"
        )


def name_rows(axes: Axes, strategies: Sequence[str]) -> None:
    """Name the rows of a horizontal figure, the first on top."""
    axes.set_yticks(range(len(strategies)), strategies)
    axes.set_ylim(len(strategies) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    sns.despine(ax=axes, left=True)


def describe(result: Result) -> str:
    """Return mean and interval, or why there is none."""
    if result.test_mean is not None:
        return score(result)
    return f"no result: {result.failed} failed" if result.failed else "not run"


def draw_curves(evidence: Evidence, summary: Summary) -> Figure:
    """Draw the validation metric by epoch: mean over seeds as a line, lowest to highest seed as a band."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.add_subplot()
    value = f"val_{summary.metric}"
    done = evidence.done[["strategy", "seed"]]
    curves = evidence.curves.merge(done, on=["strategy", "seed"]) if len(done) else evidence.curves.iloc[:0]
    curves = curves.dropna(subset=[value]) if value in curves else curves.iloc[:0]
    labels = []
    for strategy in dict.fromkeys(curves["strategy"]):
        style = look(strategy)
        by_epoch = curves[curves["strategy"] == strategy].groupby("epoch")[value]
        mean = by_epoch.mean()
        axes.fill_between(
            mean.index, by_epoch.min(), by_epoch.max(), color=style.colour, alpha=0.13, linewidth=0
        )
        axes.plot(mean.index, mean, color=style.colour, marker=style.marker, markersize=5, linewidth=1.8)
        labels.append(Label(float(mean.index[-1]), float(mean.iloc[-1]), strategy, style.colour))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {metric_name(summary)}")
    finish(axes, labels)
    return figure


def finish(axes: Axes, labels: Sequence[Label]) -> None:
    """Grid, no box, labels beside; or a line that says there is nothing to draw."""
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
    if labels:
        label_right(axes, labels)
    else:
        axes.text(0.5, 0.5, "no final run is done", transform=axes.transAxes, ha="center", color=MUTED)


def draw_cost(summary: Summary) -> Figure:
    """Draw seconds against the test metric: filled without, hollow with the tuning, and the Pareto front."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.add_subplot()
    labels, points = [], []
    for result in summary.results:
        if result.test_mean is None or not result.train_seconds:
            continue
        style, y = look(result.strategy), result.test_mean
        alone, tuned = result.train_seconds, result.train_seconds + result.tuning_seconds
        if result.test:
            axes.plot(
                (alone, alone),
                (result.test.low, result.test.high),
                color=style.colour,
                linewidth=2.5,
                alpha=0.3,
            )
        axes.plot((alone, tuned), (y, y), color=style.colour, linewidth=1, linestyle=(0, (2, 2)))
        axes.plot(tuned, y, style.marker, color="white", markeredgecolor=style.colour, markersize=8)
        axes.plot(alone, y, style.marker, color=style.colour, markersize=9, markeredgecolor="white")
        labels.append(Label(tuned, y, result.strategy, style.colour))
        points.append((alone, y))
    _draw_front(axes, points)
    if points:
        axes.set_xscale("log")
        _name_seconds(axes)
    axes.set_xlabel("seconds (log scale): one final run  ●     with all its tuning  ○")
    axes.set_ylabel(f"test {metric_name(summary)}")
    finish(axes, labels)
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, value) that no other beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    if front := pareto(points):
        axes.plot(*zip(*front, strict=True), color=MUTED, linewidth=4, alpha=0.25, zorder=0)


def _name_seconds(axes: Axes) -> None:
    low, high = axes.get_xlim()
    digits = (1.0, 2.0, 5.0) if high / low < MANY_DECADES else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color=GRID)


def draw_overview(summaries: Sequence[Summary]) -> Figure:
    """Draw a panel per study, two in a row: every strategy's mean and 95 % interval."""
    rows = (len(summaries) + 1) // 2
    strategies = max((len(summary.results) for summary in summaries), default=1)
    figure = Figure(figsize=(WIDTH, rows * (1.5 + 0.34 * strategies)), layout="constrained")
    grid = iter(
        figure.subplots(rows, min(2, len(summaries)), squeeze=False, gridspec_kw={"hspace": 0.12}).flat
    )
    for axes, summary in zip(grid, summaries, strict=False):
        for place, result in enumerate(summary.results):
            draw_result(axes, place, result, ())
            if not result.test:
                axes.annotate(
                    describe(result), (0.02, place), xycoords=BESIDE, va="center", fontsize=9, color=MUTED
                )
        name_rows(axes, [result.strategy for result in summary.results])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        for tick, result in zip(axes.get_yticklabels(), summary.results, strict=True):
            tick.set_weight("bold" if result.strategy in summary.level else "normal")
        axes.set_title(summary.study, fontsize=11, loc="left")
        axes.set_xlabel(f"test {metric_name(summary)}", fontsize=10)
    for axes in grid:
        axes.set_axis_off()
    return figure
