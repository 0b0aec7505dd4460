"""How every figure looks: one colour and marker per strategy, one theme, labels apart, the same bytes."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

WIDTH = 8.0  # inches; 800 px at 100 dots an inch
PNG_DPI = 160
INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"

# After Okabe and Ito 2008, "Color universal design", told apart with every common kind of colour blindness,
# and darkened until a label in the colour reads well on white (4.5 to 1). Markers serve grey print.
LOOKS = {
    "scratch": ("#5f5f5f", "X"),
    "feature_extractor": ("#0072b2", "o"),
    "partial": ("#00805d", "s"),
    "full": ("#c05400", "D"),
    "discriminative": ("#aa4499", "^"),
}
SPARE = (("#8f6800", "v"), ("#2a7aab", "P"), ("#882255", "<"), ("#117733", ">"), ("#332288", "h"))


@dataclass(frozen=True)
class Look:
    """Colour and marker of a strategy."""

    colour: str
    marker: str


def look(strategy: str) -> Look:
    """Return a strategy's look. One that is not ours gets one of the spare looks, always the same."""
    spare = SPARE[sum(strategy.encode()) % len(SPARE)]
    return Look(*LOOKS.get(strategy, spare))


@contextmanager
def theme() -> Iterator[None]:
    """Draw with the report's theme, whatever the user's matplotlibrc says; restore theirs afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(sns.axes_style("ticks") | sns.plotting_context("notebook", font_scale=0.95))
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # ships with matplotlib, so the same everywhere
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": MUTED,
                "axes.linewidth": 0.8,
                "xtick.color": MUTED,
                "ytick.color": MUTED,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "grid.color": GRID,
                "svg.hashsalt": "bench",
                "svg.id": "figure",
            }
        )
        yield


def render(figure: Figure, form: str) -> bytes:
    """Return a figure as `png` or `svg`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=form, dpi=PNG_DPI, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return the places moved until they are `gap` apart and within `low` and `high`, in the same order.

    Where they can't all fit, they are spread evenly.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    blocks: list[tuple[float, list[int]]] = []  # centre of a run of touching labels, and whose they are
    for index in order:
        centre, members = min(max(places[index], low), high), [index]
        while blocks and _touch(blocks[-1], (centre, members), gap):
            before = blocks.pop()[1]
            members = before + members
            half = gap * (len(members) - 1) / 2
            centre = sum(places[i] for i in members) / len(members)
            centre = min(max(centre, low + half), high - half)
        blocks.append((centre, members))
    moved = [0.0] * len(places)
    for centre, members in blocks:
        for rank, index in enumerate(members):
            moved[index] = centre + gap * (rank - (len(members) - 1) / 2)
    return moved


def _touch(lower: tuple[float, list[int]], upper: tuple[float, list[int]], gap: float) -> bool:
    return upper[0] - lower[0] < gap * (len(lower[1]) + len(upper[1])) / 2


@dataclass(frozen=True)
class Label:
    """A text beside the axes for a point in them, in data coordinates."""

    x: float
    y: float
    text: str
    colour: str


def label_right(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels to the right of the axes, level with their points where they can be, and joined."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    heights = spread([label.y for label in labels], gap, low + gap / 2, high - gap / 2)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for label, height in zip(labels, heights, strict=True):
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xytext=(1.03, height),
            textcoords=beside,
            color=label.colour,
            fontsize=10,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.colour,
                "linewidth": 0.7,
                "alpha": 0.5,
                "shrinkB": 4,
            },
        )
