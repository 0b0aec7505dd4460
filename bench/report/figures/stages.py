"""Figure of the stages: how far each moved from its pretrained weights, how like them it still is."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.evidence import Evidence
from bench.report.figures.axis_numbers import plain_numbers
from bench.report.figures.base import Drawing, take
from bench.report.figures.label_layout import Label, label_right
from bench.report.figures.style import WIDE, look, short

MEASURES = {"change": "relative change of the weights", "cka": "CKA with the pretrained features"}


def moved(evidence: Evidence) -> Drawing | None:
    """The change of each stage's weights and features, a line a strategy; None where nothing is known."""
    known = evidence.stages.dropna(subset=["depth"])
    data = (
        known.groupby(["strategy", "depth", "stage"], sort=False, observed=True)[list(MEASURES)]
        .agg(["mean", "min", "max"])
        .reset_index()
    )
    data.columns = pd.Index(["_".join(filter(None, names)) for names in data.columns])
    if not len(data):
        return None
    figure = Figure(figsize=(WIDE, 3.0), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
        labels = _lines(axes, data.dropna(subset=[f"{measure}_mean"]), measure)
        axes.set_ylabel(words)
        if measure == "change":
            _from_zero(axes, data["change_mean"])
        else:
            axes.set_ylim(min(0.0, data["cka_min"].min()), 1.03)
    if labels:
        label_right(panels[-1], labels)
    means = known.groupby("strategy", sort=False)["change"].mean().dropna()
    return take(
        figure,
        data,
        wide=True,
        name="stages",
        title="How far each stage moved from its pretrained weights",
        finding=_moved_most(data),
        caption="Left: ||w - w0|| / ||w0|| of a stage's weights; zero: it stayed as it was. Right: "
        "linear CKA (Kornblith et al. 2019) of what the stage puts out with what it put out with the "
        "pretrained weights, on the same images; 1: the same features. Stages from input to output; mean "
        f"over seeds, band from lowest to highest.{_started_elsewhere(data)}",
        alt="Relative change of the weights, mean over stages: "
        + "; ".join(f"{name} {value:.3f}" for name, value in means.items())
        + ".",
    )


def _moved_most(data: pd.DataFrame) -> str:
    """Say which stage of which strategy moved most."""
    known = data.dropna(subset=["change_mean"])
    if known.empty or not known["change_mean"].max():
        return ""
    most = known.iloc[int(known["change_mean"].to_numpy().argmax())]
    return (
        f"{most['stage']} of {most['strategy']} moved most: by {most['change_mean']:.1%} of its weights' norm"
    )


def _started_elsewhere(data: pd.DataFrame) -> str:
    """Say what the figure means for strategies that did not start from the pretrained weights."""
    changed = data.groupby("strategy", sort=False)["change_mean"].count()
    names = [str(name) for name, stages in changed.items() if not stages]
    if not names:
        return ""
    return (
        f" {' and '.join(names)} did not start from the pretrained weights, so nothing is drawn on the "
        "left; the right shows how much its features came to resemble theirs."
    )


def _lines(axes: Axes, data: pd.DataFrame, measure: str) -> list[Label]:
    """Draw a line for each strategy; return their labels."""
    names = data.drop_duplicates("depth").sort_values("depth")
    labels = []
    for strategy, mine in data.groupby("strategy", sort=False):
        style, by_depth = look(str(strategy)), mine.sort_values("depth")
        x, mean = by_depth["depth"].astype(float), by_depth[f"{measure}_mean"].astype(float)
        low, high = (by_depth[f"{measure}_{end}"].astype(float) for end in ("min", "max"))
        axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
        axes.plot(x, mean, color=style.colour, marker=style.marker, markersize=5, linewidth=1.4)
        labels.append(Label(float(x.iloc[-1]), float(mean.iloc[-1]), str(strategy), style.colour))
    axes.set_xticks(
        names["depth"].astype(float),
        [short(str(name), 12) for name in names["stage"]],
        rotation=30,
        ha="right",
    )
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
    return labels


def _from_zero(axes: Axes, change: "pd.Series[float]") -> None:
    """Make the axis logarithmic down to the smallest change and show zero below it."""
    positive = change[change > 0]
    bottom = -0.03 * float(axes.get_ylim()[1])
    if len(positive) and positive.max() / positive.min() > 20:
        smallest = 10.0 ** np.floor(np.log10(positive.min()))
        axes.set_yscale("symlog", linthresh=smallest)
        powers = np.arange(round(np.log10(smallest)), np.ceil(np.log10(positive.max())) + 1)
        axes.set_yticks([0.0, *10.0**powers])
        plain_numbers(axes.yaxis)
        bottom = -0.15 * smallest
    axes.set_ylim(bottom=bottom)
