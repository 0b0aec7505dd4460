"""How every figure looks: one colour and marker per strategy, for screen and print, light and dark."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, to_hex
from matplotlib.figure import Figure

from bench.core.text import one_line

# Inches. In a column of 3.4 inches the smallest text (8 points) is left with 5.4, which can be read.
WIDTH, WIDE = 5.0, 7.2
PNG_DPI = 220
INK, MUTED, GRID, PAPER = "#222222", "#666666", "#e4e4e4", "#ffffff"
ON_LIGHT, ON_DARK = "#212121", "#fefefe"  # text on a coloured cell, which stays as it is in the dark
SMALL, TINY, FINDING = 8, 7, 10  # points: of labels, of the footer, of what a figure shows to be so
LINE = 0.16  # inches from one label to the next
MANY = 500  # more points than this are drawn as pixels in the SVG too
LONGEST_NAME = 22
# After Okabe and Ito 2008, "Color universal design", told apart with every common kind of colour blindness,
# and darkened until a label in the colour reads well on white (4.5 to 1), or lightened until it does on the
# dark page. Markers serve grey print.
LOOKS = {
    "scratch": ("#5f5f5f", "#b4b4ba", "X"),
    "feature_extractor": ("#0072b2", "#56b4e9", "o"),
    "partial": ("#00805d", "#3fc79a", "s"),
    "full": ("#c05400", "#ff9d4d", "D"),
    "discriminative": ("#aa4499", "#e592d8", "^"),
}
SPARE = (
    ("#8f6800", "#e3b93c", "v"),
    ("#2a7aab", "#8ccdf5", "P"),
    ("#882255", "#ee8fb6", "<"),
    ("#117733", "#78d18f", ">"),
    ("#332288", "#b0a6ff", "h"),
)
# Of a matrix, from nothing to all: one hue, the darker the more; on a dark page the lighter the more. Up to
# the shade TURN dark letters read on it (light ones on a dark page), from the next one on light letters do.
SHADES, TURN = 16, 10
_LIGHT_RAMP = ("#f7fbff", "#5b9ccb", "#2f70ad", "#08478d")
_DARK_RAMP = ("#24262b", "#2f6a98", "#67a3d0", "#a5d8fa")


def _ramp(colours: Sequence[str]) -> tuple[str, ...]:
    places = (0, TURN / (SHADES - 1), (TURN + 1) / (SHADES - 1), 1)
    ramp = LinearSegmentedColormap.from_list("ramp", list(zip(places, colours, strict=True)))
    return tuple(to_hex(ramp(shade / (SHADES - 1))) for shade in range(SHADES))


LIGHT_SHADES, DARK_SHADES = _ramp(_LIGHT_RAMP), _ramp(_DARK_RAMP)
DARK = {INK: "#ececef", MUTED: "#a8a8b0", GRID: "#3a3b42", PAPER: "#1f2024"}
DARK |= {ON_LIGHT: "#ededf0", ON_DARK: "#17181b"}
DARK |= dict(zip(LIGHT_SHADES, DARK_SHADES, strict=True))
DARK |= {light: dark for light, dark, _ in (*LOOKS.values(), *SPARE)}


def shades() -> ListedColormap:
    """Return the colours of a matrix, each of which has another one on a dark page."""
    return ListedColormap(list(LIGHT_SHADES), name="shades")


def ink_on(share: float) -> str:
    """Return the colour of letters on a cell at a share of the way from nothing to all."""
    return ON_DARK if min(int(share * SHADES), SHADES - 1) > TURN else ON_LIGHT


@dataclass(frozen=True)
class Look:
    """Colour on a light page, colour on a dark page, and marker of a strategy."""

    colour: str
    dark: str
    marker: str


def look(strategy: str) -> Look:
    """Return a strategy's look. One that is not ours gets one of the spare looks, always the same."""
    spare = SPARE[sum(strategy.encode()) % len(SPARE)]
    return Look(*LOOKS.get(strategy, spare))


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name cut to a length, on one line."""
    line = one_line(name)
    return line if len(line) <= longest else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def theme() -> Iterator[None]:
    """Draw with the report's theme, whatever the user's matplotlibrc says; restore theirs afterwards."""
    with mpl.rc_context(), warnings.catch_warnings():
        # a name in a script that the font lacks shows boxes; its spelling is in the page and the table
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(sns.axes_style("ticks") | sns.plotting_context("paper"))
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # ships with matplotlib, so the same everywhere
                "font.size": 9,
                "axes.labelsize": 9,
                "axes.titlesize": 9,
                "legend.fontsize": SMALL,
                "xtick.labelsize": SMALL,
                "ytick.labelsize": SMALL,
                "text.parse_math": False,  # a dollar in the name of a class is a dollar
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": MUTED,
                "axes.linewidth": 0.8,
                "xtick.color": MUTED,
                "ytick.color": MUTED,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "grid.color": GRID,
                "legend.frameon": False,
                "svg.hashsalt": "bench",
                "svg.id": "figure",
            }
        )
        yield


def render(figure: Figure, form: str) -> bytes:
    """Return a figure as `png`, or as `svg` that follows the page into the dark; always the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=form, dpi=PNG_DPI, facecolor=PAPER, metadata=metadata)
    return buffer.getvalue() if form == "png" else _follow_the_page(buffer.getvalue().decode()).encode()


def _follow_the_page(svg: str) -> str:
    """Add the style that exchanges our colours on a dark page."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        if light in svg
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + style, svg, count=1)
