"""Figures of the tuning: what so many trials find, and what the hyperparameters did."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from bench.analysis.comparisons import signed
from bench.analysis.evidence import Evidence, canonical
from bench.analysis.summary import Summary
from bench.analysis.tuning_curves import tuning_curves
from bench.core.text import plain
from bench.report.figures.axis_numbers import name_seconds, plain_numbers
from bench.report.figures.base import Drawing, Point, take
from bench.report.figures.label_layout import Label
from bench.report.figures.results import (
    finish,
    metric_name,
)
from bench.report.figures.style import (
    MANY,
    PAPER,
    WIDE,
    look,
)
from bench.strategies.registry import label_of
from bench.study.metrics import METRICS

PANELS = 6  # hyperparameters drawn: those that most strategies have
A_ROW = 3
LEAST_GAIN = 0.001  # that is worth a word
LETTERS = 30  # of a line below a panel
LOG_FROM = 20.0  # highest over lowest value, from which an axis is logarithmic


def progress(evidence: Evidence, summary: Summary) -> Drawing | None:
    """What so many trials, and so many seconds of them, may be expected to find; None without two trials."""
    data = tuning_curves(evidence)
    if data.empty or data["trials"].max() == 1:
        return None
    metric = metric_name(summary)
    figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
    by_seconds, by_trials = figure.subplots(1, 2, sharey=True)  # labels stand where all lines end
    labels, ends, points = [], [], []
    for strategy, own in data.groupby("strategy", sort=False):
        style, found = look(str(strategy)), own.groupby("trials")[["expected_best", "seconds"]].mean()
        spread = own.groupby("trials")["expected_best"].std(ddof=1).fillna(0.0)
        line = {"color": style.colour, "marker": style.marker if len(found) <= 40 else "", "markersize": 4}
        for axes, place in ((by_trials, found.index), (by_seconds, found["seconds"])):
            axes.plot(place, found["expected_best"], linewidth=1.4, **line)
            points += [
                Point(axes, x, best, f"{strategy}, {_count(trials)}: {best:.3f}")
                for x, (trials, best) in zip(place, found["expected_best"].items(), strict=True)
            ]
        low, high = found["expected_best"] - spread, found["expected_best"] + spread
        by_trials.fill_between(found.index, low, high, color=style.colour, alpha=0.12, linewidth=0)
        last = found.iloc[-1]
        labels.append(
            Label(float(found.index[-1]), float(last["expected_best"]), str(strategy), style.colour)
        )
        ends.append(f"{strategy} {last['expected_best']:.3f}")
    by_trials.set_xlabel("trials")
    by_trials.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    by_seconds.set_ylabel(f"expected best val {metric}")
    finish(by_trials, labels)
    if (data["seconds"] > 0).any():
        by_seconds.set_xscale("log")
        name_seconds(by_seconds)
    by_seconds.set_xlabel("seconds of tuning (log scale)")
    finish(by_seconds, [], "")
    return take(
        figure,
        data,
        wide=True,
        points=points,
        name="tuning",
        title="What tuning may be expected to find",
        finding=_most_gained(data, METRICS[summary.metric].sign),
        caption="The expected best validation metric of so many trials, drawn from those of a seed (Dodge et "
        "al. 2019); mean over seeds, each of which is tuned anew, and one standard deviation. Against "
        "seconds, with frozen features computed once, and against the number of trials, the same for all "
        "strategies. A pruned trial counts with what it had reached.",
        alt=f"Expected best validation {metric} of all trials: {'; '.join(ends)}.",
    )


def _count(trials: object) -> str:
    return "1 trial" if trials == 1 else f"{trials} trials"


def _most_gained(data: pd.DataFrame, sign: int) -> str:
    """Say which strategy gains most from its trials."""
    means = data.groupby(["strategy", "trials"], sort=False)["expected_best"].mean()
    gains = means.groupby(level=0, sort=False).agg(lambda own: sign * (own.iloc[-1] - own.iloc[0]))
    if not len(gains) or gains.max() < LEAST_GAIN:
        return ""
    return f"Tuning gains most for {gains.idxmax()}: {signed(float(gains.max()))} on validation"


def hyperparameters(evidence: Evidence, summary: Summary) -> Drawing | None:
    """Each trial's validation metric against its hyperparameters; None if none was varied."""
    trials, key = evidence.trials, ["strategy", "seed", "trial", "status"]
    metric = f"val_{summary.metric}"
    value = trials[metric].astype(float) if metric in trials else pd.Series(np.nan, trials.index)
    wide = evidence.trials.filter(regex="^param_").rename(columns=lambda name: name.removeprefix("param_"))
    varied = [name for name in wide if wide[name].groupby(evidence.trials["strategy"]).nunique().max() > 1]
    data = (
        trials[key]
        .assign(value=value)
        .join(wide[varied])
        .melt([*key, "value"], varied, "parameter", "setting")
        .dropna(subset=["setting", "value"])
        .reset_index(drop=True)
    )
    counts = (
        data.groupby("parameter", sort=False)["strategy"]
        .nunique()
        .sort_values(ascending=False, kind="stable")
    )
    shown = list(counts.index[:PANELS])
    if not shown:
        return None
    rising = METRICS[summary.metric].direction == "lower"
    done = data[data["status"] == "done"].sort_values("value", ascending=rising, kind="stable")
    best = done.drop_duplicates(["strategy", "seed"])[key]
    data["chosen"] = pd.MultiIndex.from_frame(data[key]).isin(pd.MultiIndex.from_frame(best))
    columns = 2 if len(shown) == 4 else min(A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDE, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    points: list[Point] = []
    for axes, name in zip(grid.flat, shown, strict=False):
        points += _panel(axes, data[data["parameter"] == name])
        axes.set_xlabel("\n".join(textwrap.wrap(label_of(name), LETTERS)))
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel(f"validation {metric_name(summary)}", fontsize=9)
    figure.legend(handles=_legend(canonical(data["strategy"])), loc="outside upper left", ncols=6)
    return take(
        figure,
        data,
        wide=True,
        points=points,
        name="hyperparameters",
        title="What the hyperparameters did",
        finding=_chosen_rate(data, summary),
        caption="A marker for each trial. Filled: ran to its end. Hollow: pruned, at the value that it "
        "had then. "
        "Large: the best trial of its seed, which the final run is.",
        alt="Validation metric of every trial against "
        + ", ".join(f"{label_of(name)} ({_strategies(counts[name])})" for name in shown)
        + ".",
    )


def _strategies(count: int) -> str:
    return "1 strategy" if count == 1 else f"{count} strategies"


def _chosen_rate(data: pd.DataFrame, summary: Summary) -> str:
    """Say which learning rates the seeds of the best strategy chose."""
    own = data[data["chosen"] & (data["strategy"] == summary.best) & (data["parameter"] == "learning_rate")]
    if own.empty:
        return ""
    low, high = (plain(float(f"{end:.2g}")) for end in (own["setting"].min(), own["setting"].max()))
    return (
        f"{summary.best} chose learning rates of {low} to {high}"
        if low != high
        else f"{summary.best} chose a learning rate of {low}"
    )


def _panel(axes: Axes, data: pd.DataFrame) -> list[Point]:
    """Draw the trials of a hyperparameter; return what the page says of each."""
    settings = pd.to_numeric(data["setting"], errors="coerce")
    if settings.isna().any():  # names, not numbers
        names = sorted(data["setting"].astype(str).unique())
        settings = data["setting"].astype(str).map(names.index).astype(float)
        axes.set_xticks(range(len(names)), names)
    elif (settings > 0).all() and settings.max() / settings.min() >= LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        plain_numbers(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=bool((settings % 1 == 0).all())))
    for (strategy, status, chosen), mine in data.groupby(["strategy", "status", "chosen"], sort=False):
        style = look(str(strategy))
        axes.scatter(
            settings[mine.index],
            mine["value"],
            s=70 if chosen else 22,
            marker=style.marker,
            facecolor=style.colour if status == "done" else PAPER,
            edgecolor=PAPER if chosen else style.colour,
            linewidth=0.9,
            alpha=0.9,
            zorder=3 if chosen else 2,
            rasterized=len(data) > MANY,
        )
    finish(axes, [], "")
    columns = ("strategy", "seed", "trial", "setting", "value")
    return [
        Point(axes, x, y, f"{strategy}, seed {seed}, trial {trial + 1}: {y:.3f} at {_setting(setting)}")
        for x, strategy, seed, trial, setting, y in zip(
            settings, *(data[column] for column in columns), strict=True
        )
    ]


def _setting(setting: object) -> str:
    return plain(float(f"{setting:.3g}")) if isinstance(setting, float) else str(setting)


def _legend(strategies: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker=look(name).marker, color=look(name).colour, label=name)
        for name in strategies
    ]
