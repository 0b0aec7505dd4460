"""Numbers on logarithmic axes, as a person writes them."""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.core.text import plain
from bench.report.figures.style import GRID

MANY_DECADES = 2000.0  # highest over lowest; beyond it only powers of ten are written on the axis


def name_seconds(axes: Axes) -> None:
    """Write plain seconds on a logarithmic axis."""
    low, high = axes.get_xlim()
    digits = (1.0, 2.0, 5.0) if high / low < MANY_DECADES else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=20))
    plain_numbers(axes.xaxis)
    axes.grid(axis="x", color=GRID)


def plain_numbers(axis: Axis) -> None:
    """Write 0.001 and 1,000 on a logarithmic axis, which by default has powers of ten in TeX."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())
