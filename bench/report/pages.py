"""Puts a report together: every file is made first, then each put in place, so an old report stays whole."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.analysis import Evidence, Summary, summarise
from bench.paths import replacing
from bench.report import tables
from bench.report.figures import draw_accuracy, draw_cost, draw_curves, draw_overview, metric_name
from bench.report.style import look, render, theme
from bench.study import Study

VERSION = 1  # of summary.json
CLASSES_SHOWN = 40


@dataclass(frozen=True)
class Picture:
    """A figure with the words that go with it.

    Args:
        name: of its files, without ending.
        title: what it shows; also its heading.
        caption: how to read it.
        alt: its message, for who can't see it.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes

    @property
    def source(self) -> str:
        """The SVG as a data address, so that the page is one file."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def write(evidence: Evidence, folder: Path) -> None:
    """Write the report of one study: tables, summary, figures, `report.md`, `index.html`."""
    summary = summarise(evidence)
    with theme():
        pictures = _pictures(evidence, summary)
    headers, rows = tables.table(summary)
    context = {
        "summary": summary,
        "study": evidence.study,
        "headers": headers,
        "rows": rows,
        "pictures": pictures,
        "classes": summary.classes[:CLASSES_SHOWN],
        "provenance": _provenance(evidence.provenance),
        "command": evidence.provenance.get("command") or f"bench run --study {evidence.study.name}",
    }
    files = {
        "runs.csv": _csv(evidence.runs),
        "trials.csv": _csv(evidence.trials),
        "summary.json": _json(summary.as_json() | {"provenance": evidence.provenance}),
        "report.md": _render("report.md.j2", context),
        "index.html": _render("report.html.j2", context),
    }
    _put(folder, files, pictures)


def write_overview(summaries: Sequence[tuple[Study, Summary]], folder: Path) -> None:
    """Write the comparison of several studies, whose own reports lie beside `folder`."""
    only = [summary for _, summary in summaries]
    headers, rows = tables.overview(only)
    bests = "; ".join(f"{summary.study}: {summary.best or 'no result'}" for summary in only)
    with theme():
        picture = _picture(
            draw_overview(only),
            name="overview",
            title="Every strategy on every study",
            caption="Mean over seeds with its 95 % interval. Bold: can't be told apart from the best of that "
            "study.",
            alt=f"Test metric of each strategy, a panel per study. Best by validation: {bests}.",
        )
    context = {"summaries": summaries, "headers": headers, "rows": rows, "pictures": [picture]}
    files = {
        "summary.json": _json({"studies": [summary.as_json() for summary in only]}),
        "report.md": _render("overview.md.j2", context),
        "index.html": _render("overview.html.j2", context),
    }
    _put(folder, files, [picture])


def _put(folder: Path, files: Mapping[str, str], pictures: Sequence[Picture]) -> None:
    """Write all files, the page last: who finds it finds what it names."""
    contents = {f"figures/{p.name}.png": p.png for p in pictures} | {
        f"figures/{p.name}.svg": p.svg for p in pictures
    }
    contents |= {name: text.encode() for name, text in files.items()}
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)


def _pictures(evidence: Evidence, summary: Summary) -> list[Picture]:
    metric = metric_name(summary)
    scores = "; ".join(f"{result.strategy} {tables.score(result)}" for result in summary.results)
    costs = "; ".join(
        f"{r.strategy} {tables.seconds(r.train_seconds)} s, with tuning "
        f"{tables.seconds((r.train_seconds or 0) + r.tuning_seconds)} s"
        for r in summary.results
    )
    return [
        _picture(
            draw_accuracy(evidence, summary),
            name="accuracy",
            title=f"Test {metric} by strategy",
            caption="Small dots: one per seed. Marker and bar: mean and 95 % interval over seeds and test "
            "images together. Bold: can't be told apart from the best.",
            alt=f"Mean test {metric} with 95 % interval: {scores}.",
        ),
        _picture(
            draw_curves(evidence, summary),
            name="curves",
            title=f"Validation {metric} by epoch",
            caption="Final runs with the tuned hyperparameters. Line: mean over seeds; band: lowest to "
            "highest seed.",
            alt=f"Learning curves: validation {metric} of each strategy by epoch.",
        ),
        _picture(
            draw_cost(summary),
            name="cost",
            title=f"Cost against test {metric}",
            caption="Filled: training seconds of one final run, with the 95 % interval of its score. Hollow: "
            "with the seconds of all tuning trials added. Grey line: the Pareto front of single runs; no "
            "strategy is both cheaper and better than one on it.",
            alt=f"Training seconds of a run against test {metric}: {costs}.",
        ),
    ]


def _picture(figure: Figure, **words: str) -> Picture:
    return Picture(**words, png=render(figure, "png"), svg=render(figure, "svg"))


def _csv(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps({"version": VERSION, **value}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of how the numbers came about, as pairs of words."""
    return [
        (key.replace("_", " "), _words(value))
        for key, value in provenance.items()
        if key != "command" and value not in (None, "")
    ]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        if set(value) == {"name", "reason"}:
            return f"{value['name']} ({value['reason']})"
        return ", ".join(f"{key} {_words(nested)}" for key, nested in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_words(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _render(template: str, context: Mapping[str, Any]) -> str:
    return _environment(template.endswith(".md.j2")).get_template(template).render(context)


@cache
def _environment(markdown: bool) -> Environment:
    """Names of classes and files come from strangers, so all that is filled in is escaped, in both forms."""
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escape_markdown if markdown else None,
    )
    environment.filters["verbatim"] = lambda text: Markup(str(text).replace("```", "` ` `"))  # noqa: S704 (fenced)
    environment.globals["look"] = look
    return environment


def _escape_markdown(value: Any) -> Any:
    """Return text with nothing in it that Markdown or HTML would act on; what is markup already stays."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*|~]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:])", r"\\\1", line))  # noqa: S704 (escaped here)
