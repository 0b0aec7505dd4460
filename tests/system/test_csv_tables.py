"""CSV reads back exactly what was written, whatever signs are in names, and no spreadsheet executes it."""

import csv
import io
import sys
import unicodedata

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.system.csv_tables import from_csv, to_csv

INVISIBLE = [
    sign
    for sign in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(sign) in {"Cc", "Cf", "Zl", "Zp", "Zs"}
]
STARTS = ["=", "+", "-", "@", "\t=", "\r", "\n=", " =", "\x00=", "\ufeff=", "\N{FULLWIDTH EQUALS SIGN}"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from([*INVISIBLE, *"=+-@'\",;\n\r"]))


@given(st.lists(NAMES, min_size=1, max_size=5))
@example(["a\rb", "\r=1", "a\r\n=cmd()", "\x00", "'=1", "''=1", "'", "NA", ""])
def test_any_names_read_back(names):
    frame = pd.DataFrame({"value": range(len(names)), "name": names, "again": names[::-1]})
    pd.testing.assert_frame_equal(from_csv(to_csv(frame).encode(), ("name", "again")), frame)


def test_every_invisible_sign_reads_back_here_and_by_the_standard_library():
    names = [form.format(sign) for sign in INVISIBLE for form in ("{}", "a{}b", "{}a", "a{}", 'a{}"b,\r\n')]
    written = to_csv(pd.DataFrame({"value": 1, "name": names}))
    assert from_csv(written.encode(), ("name",))["name"].tolist() == names
    rows = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert [row[1].removeprefix("'") for row in rows] == [name.removeprefix("'") for name in names]


@pytest.mark.parametrize("start", STARTS)
def test_a_spreadsheet_executes_nothing(start):
    text = f"{start}1"
    written = to_csv(pd.DataFrame({"class": [text, "plain", f"a\r{text}"], "value": [-1.5, 2.0, 3.0]}))
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows[1:] == [["'" + text, "-1.5"], ["plain", "2.0"], [f"a\r{text}", "3.0"]]


def test_names_of_columns_are_guarded_too_and_ordinary_tables_are_not_quoted():
    assert to_csv(pd.DataFrame({"=a": [1], "b": ["c d"]})) == "'=a,b\n1,c d\n"
