"""Tables as files: CSV that no spreadsheet executes, LaTeX to paste. Names in them come from strangers."""

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

# What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; a text that a spreadsheet would execute gets an apostrophe in front."""
    safe = frame.map(_harmless)
    safe.columns = pd.Index([_harmless(name) for name in frame.columns])
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def latex(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    """Return a table in LaTeX that needs `booktabs`; the first column is text, the others are numbers."""
    frame = pd.DataFrame([list(row) for row in rows], columns=[_tex(header) for header in headers])
    body = (
        frame.map(_tex)
        .style.hide(axis="index")
        .to_latex(hrules=True, column_format="l" + "r" * (len(headers) - 1))
    )
    return (
        "% \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(caption)}}}\n\\label{{tab:{label}}}\n{body}\\end{{table}}\n"
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _tex(text: str) -> str:
    """Return text with nothing in it that LaTeX would act on."""
    return "".join(_TEX.get(sign, sign) for sign in " ".join(str(text).split()))
