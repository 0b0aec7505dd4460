"""Figures of the tuning: how fast it found what it found, and what the hyperparameters did."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from bench.analysis.evidence import Evidence, canonical, tuning_seconds
from bench.analysis.summary import Summary
from bench.report.figures.base import Picture, take
from bench.report.figures.label_layout import Label
from bench.report.figures.results import (
    finish,
    metric_name,
    name_seconds,
    plain_numbers,
)
from bench.report.figures.style import (
    MANY,
    PAPER,
    WIDE,
    look,
)
from bench.study.metrics import METRICS

PANELS = 6  # hyperparameters drawn: those that most strategies have
A_ROW = 3
LOG_FROM = 20.0  # highest over lowest value, from which an axis is logarithmic


def _trials(evidence: Evidence, summary: Summary) -> pd.DataFrame:
    """Return the trials with their value on validation and their seconds, added up by strategy."""
    trials = evidence.trials
    metric = f"val_{summary.metric}"
    value = trials[metric].astype(float) if metric in trials else pd.Series(np.nan, trials.index)
    data = trials[["strategy", "trial", "status"]].assign(value=value, seconds=tuning_seconds(trials))
    by_strategy = data.groupby("strategy", sort=False)
    sign = METRICS[summary.metric].sign
    scores = sign * data["value"].where(data["status"] == "done")
    best = sign * scores.groupby(data["strategy"], sort=False).cummax().groupby(data["strategy"]).ffill()
    return data.assign(spent_seconds=by_strategy["seconds"].cumsum(), best_so_far=best)


def progress(evidence: Evidence, summary: Summary) -> Picture | None:
    """The best validation metric so far, by trials and by seconds; None without two trials, or one done."""
    data = _trials(evidence, summary)
    if not data["best_so_far"].notna().any() or len(data) == data["strategy"].nunique():
        return None
    metric = metric_name(summary)
    figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
    by_trial, by_seconds = figure.subplots(1, 2, sharey=True)
    labels = []
    for strategy, mine in data.dropna(subset=["best_so_far"]).groupby("strategy", sort=False):
        style = look(str(strategy))
        line = {"color": style.colour, "marker": style.marker if len(mine) <= 40 else "", "markersize": 4}
        by_trial.step(
            mine["trial"].astype(float) + 1, mine["best_so_far"], where="post", linewidth=1.4, **line
        )
        by_seconds.step(mine["spent_seconds"], mine["best_so_far"], where="post", linewidth=1.4, **line)
        last = mine.iloc[-1]
        labels.append(
            Label(float(last["spent_seconds"]), float(last["best_so_far"]), str(strategy), style.colour)
        )
    by_trial.set_xlabel("trials")
    by_trial.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    by_trial.set_ylabel(f"best validation {metric} so far")
    finish(by_trial, [], "")
    if (data["spent_seconds"] > 0).any():
        by_seconds.set_xscale("log")
        name_seconds(by_seconds)
    by_seconds.set_xlabel("seconds of tuning (log scale)")
    finish(by_seconds, labels)
    ends = data.groupby("strategy", sort=False)["best_so_far"].last().dropna()
    return take(
        figure,
        data,
        wide=True,
        name="tuning",
        title="What tuning found, and when",
        caption="The best trial so far, by its validation metric, of the trials that were not pruned: "
        "against "
        "the number of trials, the same for all strategies, and against their seconds, with frozen features "
        "computed once.",
        alt=f"Best validation {metric} after all trials: "
        f"{'; '.join(f'{n} {v:.3f}' for n, v in ends.items())}.",
    )


def hyperparameters(evidence: Evidence, summary: Summary) -> Picture | None:
    """Each trial's validation metric against its hyperparameters; None if none was varied."""
    trials = _trials(evidence, summary)
    wide = evidence.trials.filter(regex="^param_").rename(columns=lambda name: name.removeprefix("param_"))
    varied = [name for name in wide if wide[name].groupby(evidence.trials["strategy"]).nunique().max() > 1]
    data = (
        trials[["strategy", "trial", "status", "value"]]
        .join(wide[varied])
        .melt(["strategy", "trial", "status", "value"], varied, "parameter", "setting")
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
    best = done.drop_duplicates("strategy").set_index("strategy")["trial"]
    data["chosen"] = data["trial"] == data["strategy"].map(best)
    columns = 2 if len(shown) == 4 else min(A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDE, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, shown, strict=False):
        _panel(axes, data[data["parameter"] == name])
        axes.set_xlabel(name.replace("_", " "))
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel(f"validation {metric_name(summary)}", fontsize=9)
    figure.legend(handles=_legend(canonical(data["strategy"])), loc="outside upper left", ncols=6)
    return take(
        figure,
        data,
        wide=True,
        name="hyperparameters",
        title="What the hyperparameters did",
        caption="A marker for each trial. Filled: ran to its end. Hollow: pruned, at the value that it "
        "had then. "
        "Large: the best trial, whose hyperparameters the final runs use.",
        alt="Validation metric of every trial against "
        + ", ".join(f"{name} (of {counts[name]} strategies)" for name in shown)
        + ".",
    )


def _panel(axes: Axes, data: pd.DataFrame) -> None:
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


def _legend(strategies: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker=look(name).marker, color=look(name).colour, label=name)
        for name in strategies
    ]
