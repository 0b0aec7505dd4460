"""The report on several numbers of training labels: accuracy against labels, and where strategies cross."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.analysis.evidence import Evidence
from bench.analysis.label_efficiency import Efficiency, Point
from bench.analysis.verdict import SMOKE_TEST
from bench.report.figures.base import Stamp, take
from bench.report.figures.label_layout import Label, label_right
from bench.report.figures.study_figures import footer, of_what
from bench.report.figures.style import (
    MUTED,
    WIDTH,
    look,
    theme,
)
from bench.report.tables import NOTHING
from bench.report.templating import put, render_page
from bench.study.metrics import METRICS
from bench.system.csv_tables import to_csv

TITLE = "Accuracy against the number of training labels"
MEANS = "Mean and 95 % interval over seeds and test images together."
LEADS = (
    "Below: paired difference to {reference} with its 95 % interval, of that size alone; a tick on the zero "
    "line: where the mean overtakes. Differences beyond {furthest} are not shown."
)
MADE = (
    "Every size is tuned and run like a study of its own; the smaller training sets are part of the larger "
    "ones, validation and test images are the same."
)
FURTHEST = 0.15  # differences beyond it don't set the scale, so that crossings can be seen
Drawn = tuple[int, float, float, float]  # labels, value, low, high


def write_sizes(summary: Efficiency, by_size: Mapping[int, Evidence], folder: Path) -> None:
    """Write `report.md`, `index.html`, `summary.json`, the runs of all sizes, the figure and its data."""
    said = [SMOKE_TEST] if summary.smoke else [summary.words(each) for each in summary.crossovers]
    with theme():
        picture = take(
            draw_efficiency(summary),
            numbers(summary),
            name="efficiency",
            title=TITLE,
            finding=summary.story,
            caption=caption(summary),
            alt=" ".join(said) or TITLE,
        ).rendered(_stamp(by_size))
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
        "crossovers.csv": to_csv(pd.DataFrame([vars(c) for c in summary.crossovers])),
        "runs.csv": to_csv(pd.concat(runs)),
        "summary.json": json.dumps(summary.as_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n",
        "report.md": render_page("sizes.md.j2", context),
        "index.html": render_page("sizes.html.j2", context),
    }
    put(folder, files, [picture])


def _stamp(by_size: Mapping[int, Evidence]) -> Stamp:
    """Return what the figure says of its origin."""
    evidence = by_size[max(by_size)]
    study, seeds = evidence.study, max(int(e.done["seed"].nunique()) for e in by_size.values())
    return Stamp(
        f"{of_what(study)} \N{MIDDLE DOT} {seeds} seed{'s' if seeds != 1 else ''} at each size",
        footer(study.name, max(each.date for each in by_size.values())),
    )


def caption(summary: Efficiency) -> str:
    """Return how to read the figure."""
    below = LEADS.format(reference=summary.leads[0].reference, furthest=FURTHEST) if summary.leads else ""
    return " ".join(filter(None, (MEANS, below, MADE)))


def numbers(summary: Efficiency) -> pd.DataFrame:
    """Return what is drawn: a row for each strategy and size."""
    leads = {(lead.strategy, lead.labels): lead.difference for lead in summary.leads}
    rows = []
    for p in summary.points:
        if p.test:
            d = leads.get((p.strategy, p.labels))
            lead = (d.value, d.low, d.high) if d else (None, None, None)
            rows.append((p.strategy, p.labels, p.test.value, p.test.low, p.test.high, p.test.seeds, *lead))
    columns = ["strategy", "labels", f"test_{summary.metric}", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_low", "difference_high"])


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
            labels = {
                "none in range": f"not up to {summary.sizes[-1]:,}",
                "ahead throughout": summary.bound(0),
            }
            from_ = labels.get(found.outcome) or f"{found.labels:,.0f}"
            row.append(f"{from_}{summary.interval(found)}")
        rows.append(row)
    reference = next((c.reference for c in summary.crossovers), "the frozen backbone")
    return [
        "Strategy",
        *(f"{size:,} labels" for size in summary.sizes),
        f"Mean overtakes {reference} at",
    ], rows


def draw_efficiency(summary: Efficiency) -> Figure:
    """Draw each strategy's mean by number of labels; below, how far it is ahead of the reference."""
    figure = Figure(figsize=(WIDTH, 6.6 if summary.leads else 4.4), layout="constrained")
    panels = list(figure.subplots(1 + bool(summary.leads), sharex=True, squeeze=False).flat)
    panels[0].set_xscale("log")
    points: dict[str, list[Drawn]] = {
        strategy: [(p.labels, p.test.value, p.test.low, p.test.high) for p in summary.of(strategy) if p.test]
        for strategy in summary.strategies
    }
    _lines(panels[0], points)
    panels[0].set_ylabel(f"test {METRICS[summary.metric].label}")
    if summary.leads:
        _draw_leads(panels[1], summary)
    _ticks(panels[-1], summary)
    panels[-1].set_xlabel("training labels (log scale)")
    return figure


def _draw_leads(axes: Axes, summary: Efficiency) -> None:
    """Draw the paired differences to the reference and where the means cross."""
    points: dict[str, list[Drawn]] = {
        strategy: [
            (lead.labels, d.value, d.low, d.high)
            for lead in summary.leads
            if lead.strategy == strategy and (d := lead.difference)
        ]
        for strategy in summary.strategies
    }
    ends = [end for own in points.values() for _, *values in own for end in values]
    low, high = max(min(ends, default=0.0), -FURTHEST), min(max(ends, default=0.0), FURTHEST)
    axes.set_ylim(min(low, -0.02) - 0.01, max(high, 0.02) + 0.01)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    shifts = _lines(axes, points)
    for crossover in summary.crossovers:
        if crossover.labels is not None:
            place, colour = crossover.labels * shifts[crossover.strategy], look(crossover.strategy).colour
            axes.plot(place, 0, "|", color=colour, markersize=14, markeredgewidth=2)
    axes.set_ylabel(f"difference to {summary.leads[0].reference}")


def _lines(axes: Axes, points: Mapping[str, Sequence[Drawn]]) -> dict[str, float]:
    """Draw means and intervals by strategy; return by how much each is moved aside."""
    known = [strategy for strategy, own in points.items() if own]
    # so that intervals stand side by side
    shifts = {name: 1.03 ** (place - (len(known) - 1) / 2) for place, name in enumerate(known)}
    labels = []
    for strategy in known:
        style = look(strategy)
        x = [size * shifts[strategy] for size, *_ in points[strategy]]
        y = [value for _, value, *_ in points[strategy]]
        axes.plot(x, y, color=style.colour, marker=style.marker, markersize=6, linewidth=1.5)
        for at, (*_, low, high) in zip(x, points[strategy], strict=True):
            axes.plot((at, at), (low, high), color=style.colour, linewidth=2.5, alpha=0.4)
        labels.append(Label(x[-1], y[-1], strategy, style.colour))
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    label_right(axes, [label for label in labels if low <= label.y <= high])
    return shifts


def _ticks(axes: Axes, summary: Efficiency) -> None:
    axes.set_xticks(summary.sizes, [f"{size:,}" for size in summary.sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def _score(point: Point) -> str:
    if point.test is None:
        return NOTHING
    return f"{point.test.value:.3f} [{point.test.low:.3f}, {point.test.high:.3f}]"
