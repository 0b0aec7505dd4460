"""The report on several numbers of training labels: accuracy against labels, and where strategies cross."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.analysis import Evidence
from bench.analysis.efficiency import Efficiency, Point
from bench.report import forms
from bench.report.pages import put, render_page
from bench.report.picture import take
from bench.report.style import WIDTH, Label, label_right, look, theme
from bench.report.tables import NOTHING
from bench.study import metric_in_words

TITLE = "Accuracy against the number of training labels"
CAPTION = (
    "Marker and bar: mean and 95 % interval over seeds and test images together. The axis of labels is "
    "logarithmic. Every size is tuned and run like a study of its own; the smaller training sets are part of "
    "the larger ones, validation and test images are the same."
)


def write_sizes(summary: Efficiency, by_size: Mapping[int, Evidence], folder: Path) -> None:
    """Write `report.md`, `index.html`, `summary.json`, the runs of all sizes, the figure and its data."""
    said = [summary.words(crossover) for crossover in summary.crossovers]
    with theme():
        picture = take(
            draw_efficiency(summary),
            numbers(summary),
            name="efficiency",
            title=TITLE,
            caption=CAPTION,
            alt=" ".join(said) or TITLE,
        )
    headers, rows = table(summary)
    context = {
        "summary": summary,
        "said": said,
        "headers": headers,
        "rows": rows,
        "picture": picture,
        "command": next(iter(by_size.values())).provenance.get("command", ""),
    }
    runs = [evidence.runs.assign(train_labels=size) for size, evidence in sorted(by_size.items())]
    files = {
        "crossovers.csv": forms.csv(pd.DataFrame([vars(c) for c in summary.crossovers])),
        "runs.csv": forms.csv(pd.concat(runs)),
        "summary.json": json.dumps(summary.as_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n",
        "report.md": render_page("sizes.md.j2", context),
        "index.html": render_page("sizes.html.j2", context),
    }
    put(folder, files, [picture])


def numbers(summary: Efficiency) -> pd.DataFrame:
    """Return what is drawn: a row for each strategy and size."""
    rows = [
        (p.strategy, p.labels, p.test.value, p.test.low, p.test.high, p.test.seeds)
        for p in summary.points
        if p.test
    ]
    return pd.DataFrame(
        rows, columns=["strategy", "labels", f"test_{summary.metric}", "low", "high", "seeds"]
    )


def table(summary: Efficiency) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows: a row for each strategy, its score at every size, and where it crosses."""
    crossed = {c.strategy: c for c in summary.crossovers}
    rows = []
    for strategy in summary.strategies:
        row = [strategy, *(_score(point) for point in summary.of(strategy))]
        found = crossed.get(strategy)
        if found is None or found.outcome == "unknown":
            row.append(NOTHING)
        else:
            labels = {"none in range": "none in range", "ahead throughout": summary.bound(0)}
            from_ = labels.get(found.outcome) or f"{found.labels:,.0f}"
            row.append(f"{from_}{summary.interval(found)}")
        rows.append(row)
    reference = next((c.reference for c in summary.crossovers), "the frozen backbone")
    return ["Strategy", *(f"{size:,} labels" for size in summary.sizes), f"Ahead of {reference} from"], rows


def draw_efficiency(summary: Efficiency) -> Figure:
    """Draw mean and interval of each strategy by number of labels, and the crossovers as rules below."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    labels = []
    known = [strategy for strategy in summary.strategies if any(p.test for p in summary.of(strategy))]
    for place, strategy in enumerate(known):
        style = look(strategy)
        points = [point for point in summary.of(strategy) if point.test]
        shift = 1.03 ** (place - (len(known) - 1) / 2)  # so that intervals stand side by side
        x = [point.labels * shift for point in points]
        y = [point.test.value for point in points if point.test]
        axes.plot(x, y, color=style.colour, marker=style.marker, markersize=6, linewidth=1.5)
        for at, point in zip(x, points, strict=True):
            if point.test:
                ends = (point.test.low, point.test.high)
                axes.plot((at, at), ends, color=style.colour, linewidth=2.5, alpha=0.4)
        labels.append(Label(x[-1], y[-1], strategy, style.colour))
    _ticks(axes, summary)
    axes.set_xlabel("training labels")
    axes.set_ylabel(f"test {metric_in_words(summary.metric)}")
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    label_right(axes, labels)
    return figure


def _ticks(axes: Axes, summary: Efficiency) -> None:
    axes.set_xticks(summary.sizes, [f"{size:,}" for size in summary.sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def _score(point: Point) -> str:
    if point.test is None:
        return NOTHING
    return f"{point.test.value:.3f} [{point.test.low:.3f}, {point.test.high:.3f}]"
