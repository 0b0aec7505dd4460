"""A contact sheet: pictures side by side with what is said of each, and colours with what they stand for."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.report.figures.style import SMALL, WIDE, render, short, theme
from bench.system.files import replacing

COLUMNS = 6
LINE, TITLE = 0.15, 0.35  # inches of a line of a caption, and of the title
LONGEST = 20  # letters of a line of a caption


def draw_sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[Sequence[str]],
    title: str,
    path: Path,
    legend: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write pictures as a PNG, row by row, each above its caption.

    Args:
        pictures: uint8, shape (H, W, 3) each.
        captions: the lines of each, as many for all; what is too long is cut.
        title: of the sheet.
        path: of the PNG; replaced if it exists.
        legend: names, and the colours that they have in the pictures: red, green, blue from 0 to 255.
    """
    columns = min(COLUMNS, max(3, len(pictures)))
    rows, side = math.ceil(len(pictures) / columns), WIDE / columns
    lines = max((len(caption) for caption in captions), default=0)
    legend_rows = math.ceil(len(legend) / columns) if legend else 0
    height = TITLE + rows * (side + lines * LINE) + (legend_rows * 0.2 + 0.1 if legend_rows else 0)
    with theme():
        figure = Figure(figsize=(WIDE, height))
        figure.text(0.01, 1 - 0.5 * TITLE / height, title, ha="left", va="center", fontsize=10, weight="bold")
        for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            row, column = divmod(place, columns)
            top = TITLE + row * (side + lines * LINE)
            box = (column * side + 0.04, height - top - side + 0.04, side - 0.08, side - 0.08)
            axes = figure.add_axes((box[0] / WIDE, box[1] / height, box[2] / WIDE, box[3] / height))
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
            text = "\n".join(short(line, LONGEST) for line in caption)
            axes.annotate(
                text,
                (0, -0.04),
                xycoords="axes fraction",
                ha="left",
                va="top",
                fontsize=SMALL,
                linespacing=1.15,
            )
        if legend:
            patches = [
                Patch(color=f"#{bytes(colour).hex()}", label=short(name, LONGEST))
                for name, colour in legend.items()
            ]
            figure.legend(handles=patches, loc="lower left", ncols=columns, fontsize=SMALL, frameon=False)
        drawn = render(figure, "png")
    with replacing(path) as temporary:
        temporary.write_bytes(drawn)
