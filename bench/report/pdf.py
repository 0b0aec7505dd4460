"""The report as a PDF: the same verdict, tables and figures, on A4 pages."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily, stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from bench.core.text import one_line
from bench.report.export_formats import NUMBER
from bench.report.figures.base import Picture
from bench.report.figures.style import (
    GRID,
    INK,
    MUTED,
    PNG_DPI,
)

MARGIN = 1.8 * cm
WIDTH = A4[0] - 2 * MARGIN
HIGHEST = 19 * cm  # of a figure
INCH = 72.0  # points; figures keep their size, so that their text keeps its own
FOOT = 7.5  # points, of the line at the foot of a page
PADDING = 3.0  # points, to the left and right of a cell's text
PNG_SCALE = INCH / PNG_DPI


@cache
def _styles() -> dict[str, ParagraphStyle]:
    folder = Path(mpl.get_data_path()) / "fonts/ttf"  # a font with more than Latin letters, and always there
    registerFont(TTFont("DejaVu", folder / "DejaVuSans.ttf"))
    registerFont(TTFont("DejaVu-Bold", folder / "DejaVuSans-Bold.ttf"))
    registerFontFamily(
        "DejaVu", normal="DejaVu", bold="DejaVu-Bold", italic="DejaVu", boldItalic="DejaVu-Bold"
    )
    text = ParagraphStyle("text", fontName="DejaVu", fontSize=9, leading=13, textColor=colors.HexColor(INK))
    boxed = ParagraphStyle("boxed", text, fontName="DejaVu-Bold", borderPadding=6)
    return {
        "text": text,
        "cell": ParagraphStyle("cell", text, fontSize=7, leading=9),
        "number": ParagraphStyle("number", text, fontSize=7, leading=9, alignment=TA_RIGHT),
        "small": ParagraphStyle("small", text, fontSize=7.5, leading=10.5, textColor=colors.HexColor(MUTED)),
        "title": ParagraphStyle("title", text, fontName="DejaVu-Bold", fontSize=16, leading=21, spaceAfter=4),
        "heading": ParagraphStyle(
            "heading",
            text,
            fontName="DejaVu-Bold",
            fontSize=11,
            leading=15,
            spaceBefore=12,
            spaceAfter=4,
            keepWithNext=1,
        ),
        "banner": ParagraphStyle(
            "banner",
            boxed,
            spaceAfter=12,
            backColor=colors.HexColor("#fff3d6"),
            borderColor=colors.HexColor("#b26a00"),
            borderWidth=1,
        ),
        "verdict": ParagraphStyle("verdict", boxed, spaceBefore=6, backColor=colors.HexColor("#eef5fa")),
    }


def paragraph(text: str, style: str = "text") -> Paragraph:
    """Return a paragraph of plain text: what looks like markup in it is text too."""
    return Paragraph(escape(one_line(text)), _styles()[style])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Flowable:
    """Return a table over the width of the page, which breaks no word as long as all words fit."""
    styles = ["number" if _is_numeric(column) else "cell" for column in zip(*rows, strict=True)]
    styles = styles or ["cell"] * len(headers)
    cells: list[list[Any]] = [
        [paragraph(cell, style) for cell, style in zip(row, styles, strict=True)] for row in (headers, *rows)
    ]
    widths = _widths([[str(cell) for cell in column] for column in zip(headers, *rows, strict=True)])
    made = Table(cells, colWidths=widths, repeatRows=1)
    line = colors.HexColor(GRID)
    made.setStyle(
        TableStyle(
            [
                ("LEFTPADDING", (0, 0), (-1, -1), PADDING),
                ("RIGHTPADDING", (0, 0), (-1, -1), PADDING),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEABOVE", (0, 0), (-1, 0), 0.8, colors.HexColor(INK)),
                ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.HexColor(INK)),
                ("LINEBELOW", (0, 1), (-1, -2), 0.25, line),
                ("LINEBELOW", (0, -1), (-1, -1), 0.8, colors.HexColor(INK)),
            ]
        )
    )
    return made


def _is_numeric(column: Sequence[str]) -> bool:
    return all(NUMBER.match(str(cell)) for cell in column)


def _widths(columns: Sequence[Sequence[str]]) -> list[float]:
    """Return the widths of columns: that of the longest word, and a share of the rest by the longest cell."""
    style = _styles()["cell"]

    def width(text: str) -> float:
        return float(stringWidth(text, style.fontName, style.fontSize)) + 2 * PADDING + 0.1  # rounding

    least = [max(width(word) for cell in column for word in cell.split(" ")) for column in columns]
    wanted = [max(map(width, column)) - low + 1 for column, low in zip(columns, least, strict=True)]
    room = max(0.0, WIDTH - sum(least)) / sum(wanted)
    widths = [low + room * more for low, more in zip(least, wanted, strict=True)]
    return [WIDTH * own / sum(widths) for own in widths]


def figure(picture: Picture) -> Flowable:
    """Return a figure with heading and caption, kept on one page."""
    width, height = (side * PNG_SCALE for side in ImageReader(io.BytesIO(picture.png)).getSize())
    scale = min(1.0, WIDTH / width, HIGHEST / height)
    image = Image(io.BytesIO(picture.png), width * scale, height * scale)
    return KeepTogether([paragraph(picture.title, "heading"), image, paragraph(picture.caption, "small")])


def document(title: str, story: Sequence[Flowable], date: str = "") -> bytes:
    """Return the pages as a PDF; the same story gives the same bytes.

    Args:
        title: of the document, and at the foot of each page.
        story: what it shows.
        date: on which the numbers were made, as `2026-11-28`; empty: not known.
    """
    buffer = io.BytesIO()
    made = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=title,
        author="bench",
        lang="en",
        invariant=1,
    )
    footer = " \N{MIDDLE DOT} ".join(filter(None, (one_line(title), date)))

    def foot(canvas: Canvas, _document: Any) -> None:
        if date:  # of the numbers, not of the moment: the same story gives the same bytes
            canvas._doc._timeStamp.YMDhms = (*map(int, date.split("-")), 0, 0, 0)  # noqa: SLF001
        canvas.setFont("DejaVu", FOOT)
        canvas.setFillColor(colors.HexColor(MUTED))
        canvas.drawString(MARGIN, MARGIN / 2, footer)
        canvas.drawRightString(A4[0] - MARGIN, MARGIN / 2, f"page {canvas.getPageNumber()}")

    made.build([Spacer(1, 1), *story], onFirstPage=foot, onLaterPages=foot)
    return buffer.getvalue()
