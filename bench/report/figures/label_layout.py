"""Labels at the ends of lines, apart from each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from bench.report.figures.style import (
    LINE,
    SMALL,
)


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
    figure = axes.get_figure(root=True)
    height = figure.get_figheight() if figure else 1.0
    gap = (high - low) * LINE / (axes.get_position().height * height)
    heights = spread([label.y for label in labels], gap, low + gap / 2, high - gap / 2)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for label, height in zip(labels, heights, strict=True):
        axes.annotate(
            label.text,
            xy=(label.x, label.y),
            xytext=(1.04, height),
            textcoords=beside,
            color=label.colour,
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linestyle": (0, (1, 2)),  # no curve of the figure is dotted
                "color": label.colour,
                "linewidth": 0.7,
                "alpha": 0.5,
                "shrinkB": 4,
                "relpos": (0, 0.5),  # to the beginning of the words, not across others to their middle
            },
        )
