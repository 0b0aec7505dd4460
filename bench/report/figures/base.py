"""A figure with its words and its data, rendered once in every form."""

import base64
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.report.figures.style import render

PAD = 0.08  # inches around


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with the words that go with it.

    Args:
        name: of its files, without ending.
        title: what it shows; also its heading.
        caption: how to read it.
        alt: its message, for who can't see it.
        data: what is drawn, as a tidy table.
        wide: over the whole width of the page.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: pd.DataFrame
    png: bytes
    svg: bytes
    wide: bool = False

    @property
    def source(self) -> str:
        """The SVG as a data address, so that the page is one file."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def take(figure: Figure, data: pd.DataFrame, *, wide: bool = False, **words: str) -> Picture:
    """Render a figure; `words` are name, title, caption and alt."""
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):
        layout.set(w_pad=PAD, h_pad=PAD)
        layout.execute(figure)  # once for both forms
        figure.set_layout_engine("none")
    return Picture(**words, data=data, png=render(figure, "png"), svg=render(figure, "svg"), wide=wide)
