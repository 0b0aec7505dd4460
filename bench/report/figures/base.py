"""A figure with its words and its data: drawn, then rendered once in every form with what it is of."""

import base64
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.report.figures.style import FINDING, MUTED, SMALL, TINY, render

PAD = 0.08  # inches around
LETTER = 0.083  # inches, of a title
LINES = {"finding": 0.19, "subtitle": 0.17, "footer": 0.2}  # inches, of each line
SMALL_LETTER = 0.068
MOST_SPOTS = 2000  # in a figure: more would be half of the page's size, and too close to be pointed at


@dataclass(frozen=True)
class Stamp:
    """What every figure of a report says of its origin, so that it can be shown without the report.

    Args:
        subtitle: model, data, and how many images and seeds.
        footer: version and date.
    """

    subtitle: str = ""
    footer: str = ""


class Point(NamedTuple):
    """A place in a figure and what is said of it, in the coordinates of its axes' data."""

    axes: Axes
    x: float
    y: float
    words: str


class Spot(NamedTuple):
    """A point in shares of the figure's width and height, from the left and from the top."""

    left: float
    top: float
    words: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with the words that go with it, rendered.

    Args:
        name: of its files, without ending.
        title: what it shows; also its heading.
        finding: what it shows to be so, written above it.
        caption: how to read it.
        alt: its message, for who can't see it.
        data: what is drawn, as a tidy table.
        wide: over the whole width of the page.
        spots: where the page says a value when it is pointed at.
    """

    name: str
    title: str
    finding: str
    caption: str
    alt: str
    data: pd.DataFrame
    png: bytes
    svg: bytes
    wide: bool = False
    spots: Sequence[Spot] = ()

    @property
    def source(self) -> str:
        """The SVG as a data address, so that the page is one file."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure that is drawn and not rendered yet, with the words that go with it: see `Picture`."""

    figure: Figure
    data: pd.DataFrame
    name: str
    title: str
    caption: str
    alt: str
    finding: str = ""
    wide: bool = False
    points: Sequence[Point] = ()

    def rendered(self, stamp: Stamp) -> Picture:
        """Return the picture, with its finding and subtitle above and the footer below."""
        figure = self.figure
        _frame(figure, self.finding, stamp)
        return Picture(
            self.name,
            self.title,
            self.finding,
            self.caption,
            self.alt,
            self.data,
            png=render(figure, "png"),
            svg=render(figure, "svg"),
            wide=self.wide,
            spots=[_spot(figure, point) for point in self.points] if len(self.points) <= MOST_SPOTS else (),
        )


def take(
    figure: Figure, data: pd.DataFrame, *, wide: bool = False, points: Sequence[Point] = (), **words: str
) -> Drawing:
    """Return a figure with its words: name, title, finding, caption and alt."""
    return Drawing(figure, data, wide=wide, points=points, **words)


def rendered(drawings: Iterable[Drawing | None], stamp: Stamp) -> list[Picture]:
    """Return the pictures of what was drawn."""
    return [drawing.rendered(stamp) for drawing in drawings if drawing is not None]


def _spot(figure: Figure, point: Point) -> Spot:
    """Return where a point is in a figure that is drawn."""
    on_canvas = point.axes.transData.transform((point.x, point.y))
    left, bottom = figure.transFigure.inverted().transform(on_canvas)
    return Spot(round(float(left), 4), round(1 - float(bottom), 4), point.words)


def _frame(figure: Figure, finding: str, stamp: Stamp) -> None:
    """Make room above and below a figure, and write there what it shows and what it is of."""
    width, height = (float(side) for side in figure.get_size_inches())
    title = textwrap.wrap(finding, int((width - 2 * PAD) / LETTER))
    subtitle = textwrap.wrap(stamp.subtitle, int((width - 2 * PAD) / SMALL_LETTER))
    head = LINES["finding"] * len(title) + LINES["subtitle"] * len(subtitle) + PAD * bool(title or subtitle)
    foot = LINES["footer"] if stamp.footer else 0.0
    whole = height + head + foot
    figure.set_size_inches(width, whole)
    _lay_out(figure, foot / whole, height / whole)
    left, top = PAD / width, 1 - PAD / whole
    words: dict[str, Any] = {"ha": "left", "va": "top", "linespacing": 1.25}
    figure.text(left, top, "\n".join(title), fontsize=FINDING, weight="bold", **words)
    below = top - LINES["finding"] * len(title) / whole
    figure.text(left, below, "\n".join(subtitle), fontsize=SMALL, color=MUTED, **words)
    figure.text(1 - left, PAD / whole / 2, stamp.footer, fontsize=TINY, color=MUTED, ha="right", va="bottom")


def _lay_out(figure: Figure, bottom: float, share: float) -> None:
    """Let what is drawn have a share of the figure's height, once for both forms."""
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        above = below = 0.0  # what legends take: the layout leaves no room for one that is anchored
        for legend in figure.legends:
            tall = legend.get_window_extent().height / figure.bbox.height
            is_above = getattr(legend, "_outside_loc", "upper") == "upper"
            above, below = (above + tall, below) if is_above else (above, below + tall)
            legend.set_bbox_to_anchor((0, bottom, 1, share), transform=figure.transFigure)
        layout.set(w_pad=PAD, h_pad=PAD, rect=(0, bottom + below, 1, share - above - below))
        layout.execute(figure)
        figure.set_layout_engine("none")
        return
    for axes in figure.axes:
        place = axes.get_position()
        axes.set_position((place.x0, bottom + place.y0 * share, place.width, place.height * share))
    for text in figure.texts:
        text.set_y(bottom + text.get_position()[1] * share)
