"""Tables as CSV that reads back as written and that no spreadsheet executes: names come from strangers."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

# What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection"): also in full width, and also
# behind what they pass over at the start of a cell. Apostrophes in front count, so that the guard is undone
# exactly: each such text gets one more, and loses one.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|[\s\x00-\x1f\x7f-\x9f\ufeff]*[=+\-@＝＋－＠])")  # noqa: RUF001
# Signs that some reader takes for the end of a line or of the text; minimal quoting leaves most of them bare.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


def to_csv(frame: "pd.DataFrame") -> str:
    """Return a frame as CSV: quoted where it must be, formulas guarded by an apostrophe in front."""
    import pandas as pd

    safe = frame.map(_guarded)
    safe.columns = pd.Index([_guarded(name) for name in frame.columns])
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if _has_controls(safe) else csv.QUOTE_MINIMAL
    return safe.to_csv(index=False, lineterminator="\n", quoting=quoting)


def from_csv(content: bytes, text: Sequence[str] = ()) -> "pd.DataFrame":
    """Return the frame that `to_csv` wrote.

    Args:
        content: the file's.
        text: columns of text, in which a cell that says `NA` or nothing is just that.
    """
    import pandas as pd

    kinds: Mapping[str, type[str]] = dict.fromkeys(text, str)
    frame = pd.read_csv(io.BytesIO(content), dtype=dict(kinds), keep_default_na=False)
    for name in frame.columns.intersection(list(text)):
        frame[name] = frame[name].map(_unguarded)
    return frame


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _has_controls(frame: "pd.DataFrame") -> bool:
    texts = frame.select_dtypes(exclude=["number", "bool"])
    cells = (cell for _, column in texts.items() for cell in column.unique())
    return any(isinstance(cell, str) and _CONTROL.search(cell) for cell in (*frame.columns, *cells))
