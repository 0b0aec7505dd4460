"""Tables in LaTeX, to paste. Names in them come from strangers."""

import re
from collections.abc import Sequence

import pandas as pd

from bench.core.text import one_line


def latex(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str) -> str:
    """Return a table in LaTeX, at most as wide as the line; it needs `array` and `booktabs`.

    Args:
        headers: of the columns.
        rows: their cells; columns of numbers are set to the right.
        caption: what it shows.
        label: by which it is referred to, after `tab:`; signs that are no letter, digit or `_` become `-`.
    """
    cells = [[str(cell) for cell in column] for column in zip(headers, *rows, strict=True)]
    numbers = [all(NUMBER.match(cell) for cell in column[1:]) for column in cells]
    columns = [[c[0], *map(_tied, c[1:])] if n else c for c, n in zip(cells, numbers, strict=True)]
    size, widths = _fit(columns, numbers)
    form = "".join(_column(number, width) for number, width in zip(numbers, widths, strict=True))
    break_names = r"\_\allowbreak{}" if size == "footnotesize" else r"\_"
    texts = [[_tex(cell).replace(r"\_", break_names) for cell in column] for column in columns]
    header, *body = zip(*texts, strict=True)
    table = pd.DataFrame(body, columns=header).style.hide(axis="index")
    return (
        "% \\usepackage{array, booktabs}\n\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(caption)}}}\n\\label{{tab:{re.sub('[^A-Za-z0-9_]+', '-', label)}}}\n"
        f"\\{size}\n\\setlength{{\\tabcolsep}}{{3pt}}\n"
        f"{table.to_latex(hrules=True, column_format=f'@{{}}{form}@{{}}')}\\end{{table}}\n"
    )


NUMBER = re.compile(r"[-+<\d\N{MINUS SIGN}]|\N{EN DASH}$")
TIE = "\N{WORD JOINER}"
LINE = {"small": 66, "footnotesize": 76}  # letters that go on 345 points, the narrowest usual line
GAP = 0.018  # of the line, between two columns
SHORT, LONG = 4, 10  # letters: the narrowest column, and a word that may be broken where words are too many


def _tied(number: str) -> str:
    """Return a number that is broken at its brackets only."""
    return re.sub(r"(?<!\]) (?![\[(])", TIE, number)


def _fit(columns: Sequence[Sequence[str]], numbers: Sequence[bool]) -> tuple[str, list[float | None]]:
    """Return a size, and for each column its share of the line; None where all fit as they are."""
    longest = [max(map(len, column)) for column in columns]
    if sum(longest) <= LINE["small"]:
        return "small", [None] * len(columns)
    words = [max(SHORT, *(len(word) for cell in column for word in cell.split(" "))) for column in columns]
    size = "small" if sum(words) <= LINE["small"] else "footnotesize"
    if sum(words) > LINE[size]:
        words = [word if number else min(word, LONG) for word, number in zip(words, numbers, strict=True)]
    share = max(0, LINE[size] - sum(words)) / max(1, sum(longest) - sum(words))
    letters = [least + share * (most - least) for least, most in zip(words, longest, strict=True)]
    used = 1 - GAP * (len(columns) - 1)
    return size, [used * count / sum(letters) for count in letters]


def _column(number: bool, width: float | None) -> str:
    if width is None:
        return "r" if number else "l"
    side = r"\raggedleft" if number else r"\raggedright\hspace{0pt}"  # so that the first word is hyphenated
    return f">{{{side}\\arraybackslash}}p{{{width:.3f}\\linewidth}}"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    TIE: "~",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _tex(text: str) -> str:
    """Return text with nothing in it that LaTeX would act on."""
    return "".join(_TEX.get(sign, sign) for sign in one_line(str(text)))
