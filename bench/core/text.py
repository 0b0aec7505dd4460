"""Text of strangers, made fit to be shown: names of files and classes, questions, reasons."""

import re
from collections.abc import Sequence

# Signs that move a terminal's cursor, end lines, turn the direction of what follows, or are not allowed in
# XML; those that join letters (emoji, Persian) stay.
_UNSHOWN = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ufeff\\ufffe\\uffff\\ud800-\\udfff]"
)
_MARKDOWN = re.compile(r"([\\`*|~]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:]|!(?=\[))")


def show_controls(text: str) -> str:
    r"""Return text whose control characters are seen as escapes (`\x1b`); `\n` and tabs stay."""
    return _UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return text on one line, its blanks each one space, control characters as escapes."""
    return show_controls(" ".join(text.split()))


def printable(text: str) -> str:
    r"""Return text fit for a line of a terminal: it can't clear the screen, nor forge a line of ours."""
    return show_controls(text).replace("\n", r"\n")


def escape_markdown(text: str) -> str:
    """Return text on one line with nothing in it that Markdown or HTML would act on, or fetch."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as a person lists them: `a, b and c`."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def plain(value: float) -> str:
    """Return a number without an exponent: `0.00001`, `0.3`, `1,000`."""
    whole, point, decimals = f"{value:,.10f}".partition(".")
    return (whole + point + decimals).rstrip("0").removesuffix(".")


def in_bytes(count: float) -> str:
    """Return a number of bytes as a person says it: `0 B`, `17.3 MB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
