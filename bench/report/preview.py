"""A picture of what augmentation does to the images."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.report.figures.style import WIDTH, render, theme
from bench.system.files import replacing
from bench.system.locations import mark

LABEL_INCHES = 1.6
GAP = 0.15  # between what is evaluated and what is augmented, in columns


def preview(images: np.ndarray, row_labels: list[str], path: Path) -> None:
    """Write a grid of images as PNG: a row per image, first as it is evaluated, then augmented views.

    Args:
        images: uint8, shape (rows, columns, H, W, 3), RGB.
        row_labels: one per row, such as the class and the name of the image.
        path: of the PNG; replaced if it exists.
    """
    rows, columns, height, width, _ = images.shape
    with theme():
        side = (WIDTH - LABEL_INCHES) / (columns + GAP)
        layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        figure = Figure(figsize=(WIDTH, rows * side * height / width + 0.4), layout=layout)
        grid = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[1, GAP, *[1] * (columns - 1)])
        for axes in grid.flat:
            axes.set_axis_off()
        cells = np.delete(grid, 1, axis=1)  # the second column is the gap
        for (row, column), axes in np.ndenumerate(cells):
            axes.imshow(images[row, column], interpolation="nearest")
        for axes, label in zip(cells[:, 0], row_labels, strict=True):
            axes.annotate(label, (-0.08, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=9)
        for axes, title in zip(cells[0], ("evaluated", "augmented"), strict=False):
            axes.set_title(title, fontsize=10, loc="left")
        picture = render(figure, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    mark(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(picture)
