"""The picture that stands for a report where a link to it is shown: 1200 by 630 pixels."""

import io
import textwrap

from matplotlib.figure import Figure

from bench.analysis.summary import Summary
from bench.core.text import one_line
from bench.report.figures.base import Stamp
from bench.report.figures.style import INK, MUTED, PAPER, look
from bench.study.metrics import METRICS

SIZE, DPI = (12.0, 6.3), 100  # inches, dots an inch: 1200 x 630
MOST = 6  # strategies that there is room for
LEFT = 0.05  # of the width


def card(summary: Summary, stamp: Stamp) -> bytes:
    """Return the picture as PNG: the answer, what it is of, and a bar for each strategy."""
    figure = Figure(figsize=SIZE, facecolor=PAPER)
    chosen = summary.recommendation.strategy if summary.recommendation else ""
    said = f"Use {chosen}" if chosen else one_line(summary.study)
    figure.text(LEFT, 0.88, textwrap.shorten(said, 40), fontsize=36, weight="bold", color=INK, va="center")
    question = textwrap.wrap(one_line(summary.question), 80)[:2]
    figure.text(LEFT, 0.75, "\n".join(question), fontsize=18, color=MUTED, va="center", linespacing=1.4)
    _bars(figure, summary, chosen)
    figure.text(LEFT, 0.05, textwrap.shorten(stamp.subtitle, 90), fontsize=14, color=MUTED)
    figure.text(1 - LEFT, 0.05, stamp.footer, fontsize=14, color=MUTED, ha="right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _bars(figure: Figure, summary: Summary, chosen: str) -> None:
    shown = [result for result in summary.ranked if result.test_mean is not None][:MOST]
    if not shown:
        return
    axes = figure.add_axes((0.28, 0.15, 0.57, 0.5))
    values = [float(result.test_mean or 0.0) for result in shown]
    colours = [look(result.strategy).colour for result in shown]
    bars = axes.barh(range(len(shown)), values, 0.62, color=colours)
    for bar, result in zip(bars, shown, strict=True):
        bar.set_alpha(1.0 if result.strategy == chosen or not chosen else 0.45)
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=6, fontsize=18, color=INK)
    axes.set_yticks(range(len(shown)), [result.strategy for result in shown], fontsize=18)
    for tick, result in zip(axes.get_yticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if result.strategy == chosen else "normal")
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_title(f"test {METRICS[summary.metric].label}", loc="left", fontsize=14, color=MUTED)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
