"""Figures over several studies: every result, ranks with critical difference, costs."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.evidence import canonical
from bench.analysis.ranking import Ranks, rank
from bench.analysis.summary import Summary
from bench.core.text import listed
from bench.report.figures.axis_numbers import name_seconds
from bench.report.figures.base import Drawing, Picture, Stamp, rendered, take
from bench.report.figures.results import (
    BESIDE,
    FAR,
    describe,
    draw_result,
    far_behind,
    metric_name,
    name_rows,
    put_on_the_edge,
)
from bench.report.figures.style import (
    INK,
    MUTED,
    PAPER,
    SMALL,
    WIDE,
    WIDTH,
    look,
    short,
)
from bench.study.metrics import METRICS

NO_STAMP = Stamp()
NAMES = ("ranks", "overview", "costs", "heatmap")  # the last: of earlier reports


def of_studies(summaries: Sequence[Summary], stamp: Stamp = NO_STAMP) -> list[Picture]:
    """Return the figures that compare studies, as far as there is something to draw."""
    data = _tidy(summaries)
    ranked = rank(summaries)
    drawn = [
        overview(summaries, data),
        ranks(ranked) if ranked and ranked.differ else None,
        costs(data) if data["uncached_seconds"].notna().any() else None,
    ]
    return rendered(drawn, stamp)


def _tidy(summaries: Sequence[Summary]) -> pd.DataFrame:
    rows = [
        {
            "study": summary.study,
            "strategy": result.strategy,
            "value": result.test.value if result.test else result.test_mean,
            "low": result.test.low if result.test else None,
            "high": result.test.high if result.test else None,
            "place": result.place,
            "cached_seconds": result.cached_seconds,
            "uncached_seconds": result.uncached_seconds,
            "seconds": result.seconds,
        }
        for summary in summaries
        for result in summary.results
    ]
    return pd.DataFrame(rows).astype(
        dict.fromkeys(("value", "low", "high", "cached_seconds", "uncached_seconds", "seconds"), float)
    )


def _most_often_first(summaries: Sequence[Summary]) -> str:
    """Say which strategy is most often not shown to be worse than the best of its study."""
    counts = Counter(name for summary in summaries for name in summary.not_worse)
    if not counts:
        return ""
    most = max(counts.values())
    names = [name for name in canonical(counts) if counts[name] == most]
    verb = "is" if len(names) == 1 else "are"
    told = f"{verb} not shown to be worse than the best in {most} of {len(summaries)} studies"
    return f"{listed(names)} {told}"


def _range_of_costs(known: pd.DataFrame) -> str:
    means = known.groupby("strategy")["seconds"].mean().sort_values()
    if len(means) < 2:
        return ""
    return (
        f"{means.index[-1]} takes {means.iloc[-1] / means.iloc[0]:,.1f} times the seconds of {means.index[0]}"
    )


def _ordered(data: pd.DataFrame, study: str, sign: int) -> list[str]:
    """Return the strategies of a study with their values, the best first."""
    mine = data[data["study"] == study].dropna(subset=["value"]).sort_values("value", ascending=sign < 0)
    return [f"{row.strategy} {row.value:.3f}" for row in mine.itertuples()] or ["no result"]


def overview(summaries: Sequence[Summary], data: pd.DataFrame) -> Drawing:
    """A panel per study, two in a row: every strategy's mean and 95 % interval."""
    rows = (len(summaries) + 1) // 2
    strategies = max((len(summary.results) for summary in summaries), default=1)
    figure = Figure(figsize=(WIDE, rows * (0.95 + 0.26 * strategies)), layout="constrained")
    grid = iter(
        figure.subplots(rows, min(2, len(summaries)), squeeze=False, gridspec_kw={"hspace": 0.08}).flat
    )
    for axes, summary in zip(grid, summaries, strict=False):
        _panel(axes, summary)
    for axes in grid:
        axes.set_axis_off()
    signs = {summary.study: METRICS[summary.metric].sign for summary in summaries}
    return take(
        figure,
        data,
        wide=True,
        name="overview",
        title="Every strategy on every study",
        finding=_most_often_first(summaries),
        caption="Mean over seeds with its 95 % interval. Bold: not shown to be worse than the best of "
        f"that study. Arrow on the edge: more than {FAR:g} behind the best.",
        alt="Test metric: "
        + "; ".join(f"{name}: {', '.join(_ordered(data, name, sign))}" for name, sign in signs.items())
        + ".",
    )


def _panel(axes: Axes, summary: Summary) -> None:
    far = far_behind(summary)
    for place, result in enumerate(summary.ranked):
        draw_result(axes, place, result, ())
        if not result.test:
            text = describe(result)
            axes.annotate(text, (0.02, place), xycoords=BESIDE, va="center", fontsize=SMALL, color=MUTED)
    put_on_the_edge(axes, summary.ranked, far, METRICS[summary.metric].sign)
    name_rows(axes, [result.strategy for result in summary.ranked])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for tick, result in zip(axes.get_yticklabels(), summary.ranked, strict=True):
        tick.set_fontweight("bold" if result.strategy in summary.not_worse else "normal")
    axes.set_title(short(summary.study, 40), loc="left")
    axes.set_xlabel(f"test {metric_name(summary)}")


def ranks(ranked: Ranks) -> Drawing:
    """The critical-difference diagram: mean ranks over data sets, joined where they can't be told apart."""
    from scikit_posthocs import critical_difference_diagram

    figure = Figure(figsize=(WIDTH, 1.2 + 0.24 * len(ranked.mean)))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.28, right=0.72, top=0.78, bottom=0.05)
    critical_difference_diagram(
        dict(ranked.mean),
        ranked.p,
        ax=axes,
        label_fmt_left="{label} ({rank:.2f})",
        label_fmt_right="({rank:.2f}) {label}",
        label_props={"fontsize": SMALL},
        color_palette={name: look(name).colour for name in ranked.mean},
        crossbar_props={"color": INK, "linewidth": 2.5},
        marker_props={"s": 26},
        text_h_margin=0.03,
    )
    axes.tick_params(labelsize=SMALL)
    over, p = _over(ranked), f"p = {ranked.friedman_p:.3f}".replace("= 0.000", "< 0.001")
    text = f"critical difference {ranked.difference:.2f}" if ranked.differ else f"Friedman {p}"
    figure.text(0.5, 0.97, f"mean rank over {over}; {text}", ha="center", va="top", fontsize=SMALL)
    apart = "; ".join(f"{one} before {other}" for one, other in ranked.apart) or "no two strategies"
    tests = f"That all are alike: {p} (Friedman)"
    if ranked.differ:
        tests += (
            f"; mean ranks have to differ by {ranked.difference:.2f} (Nemenyi's test at 0.05; Demsar 2006)."
        )
    else:
        tests += ", so none are told apart and no pairs are tested (Demsar 2006)."
    return take(
        figure,
        ranked.scores.rank(axis="columns", ascending=False).rename_axis("data_set").reset_index(),
        name="ranks",
        title="Ranks over the data sets",
        finding=f"Told apart by rank: {apart}",
        caption=f"Mean rank of each strategy over {over}; 1 is best. A bar joins strategies that can't be "
        f"told apart. {tests} Studies on the same images count as one data set, by their mean; so do "
        "seeds.",
        alt="Mean ranks: "
        + ", ".join(f"{n} {r:.2f}" for n, r in sorted(ranked.mean.items(), key=lambda item: item[1]))
        + f". Told apart: {apart}.",
    )


def _over(ranked: Ranks) -> str:
    """Say what was ranked over: `3 data sets (4 studies)`."""
    sets = len(ranked.scores)
    return f"{sets} data sets" + (f" ({ranked.studies} studies)" if ranked.studies > sets else "")


def costs(data: pd.DataFrame) -> Drawing:
    """Seconds of a run by strategy, a marker for each study."""
    known = data.dropna(subset=["uncached_seconds"])
    known = known[known["uncached_seconds"] > 0]
    strategies = canonical(known["strategy"])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(strategies)), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(strategies):
        mine, colour = known[known["strategy"] == name], look(name).colour
        axes.scatter(mine["cached_seconds"], [place - 0.16] * len(mine), s=22, color=colour)
        axes.scatter(mine["uncached_seconds"], [place] * len(mine), s=22, marker="D", color=colour, alpha=0.7)
        axes.scatter(mine["seconds"], [place + 0.16] * len(mine), s=22, facecolor=PAPER, edgecolor=colour)
    axes.set_xscale("log")
    name_rows(axes, strategies)
    name_seconds(axes)
    axes.set_xlabel("seconds (log scale)")
    return take(
        figure,
        known[["study", "strategy", "cached_seconds", "uncached_seconds", "seconds"]],
        name="costs",
        title="What each strategy costs",
        finding=_range_of_costs(known),
        caption="A marker for each study. Dots: a final run that finds its frozen features; diamonds: "
        "one that computes "
        "them; hollow: all trials of a seed, of which it is the best, with frozen features computed once.",
        alt="Seconds of a run that computes all, mean over studies: "
        + ", ".join(f"{n} {v:.0f}" for n, v in known.groupby("strategy")["uncached_seconds"].mean().items())
        + ".",
    )
