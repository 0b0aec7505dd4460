"""Puts a report together: every file is made first, then each put in place, so an old report stays whole."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis import Evidence, Summary, summarise
from bench.analysis.advice import SOURCE, SOURCE_URL
from bench.paths import replacing
from bench.report import figures, forms, pdf, tables
from bench.report.figures import studies
from bench.report.picture import Picture
from bench.report.style import look, theme
from bench.standing import VERSION
from bench.study import Study, metric_in_words

CLASSES_SHOWN = 40
RUNS_SHOWN = 500


def write(evidence: Evidence, folder: Path) -> None:
    """Write the report of one study: tables, summary, figures, `report.md`, `report.pdf`, `index.html`."""
    summary = summarise(evidence)
    with theme():
        pictures = figures.of_study(evidence, summary)
    headers, rows = tables.table(summary)
    run_headers, runs = tables.runs(evidence)
    context: dict[str, Any] = {
        "summary": summary,
        "study": evidence.study,
        "headers": headers,
        "rows": rows,
        "pairs": tables.pairs(summary),
        "effects": tables.has_effects(summary),
        "run_headers": run_headers,
        "runs": runs[:RUNS_SHOWN],
        "more_runs": max(0, len(runs) - RUNS_SHOWN),
        "run_pages": evidence.run_pages if evidence.run_pages.startswith(("http://", "https://")) else "",
        "pictures": pictures,
        "classes": summary.classes[:CLASSES_SHOWN],
        "provenance": _provenance(evidence.provenance),
        "near_duplicates": len(evidence.near_duplicates),
        "command": evidence.provenance.get("command") or f"bench run --study {evidence.study.name}",
    }
    files: dict[str, str | bytes] = {
        **_tables(summary),
        "runs.csv": forms.csv(evidence.runs),
        "trials.csv": forms.csv(evidence.trials),
        "summary.json": _json(
            summary.as_json()
            | {"table": {"headers": headers, "rows": rows}, "provenance": evidence.provenance}
            | {"fingerprint": evidence.fingerprint}
        ),
        "report.md": render_page("report.md.j2", context),
        "report.pdf": _pdf(summary, pictures, context["provenance"]),
        "index.html": render_page("report.html.j2", context),
    }
    if evidence.near_duplicates:
        columns = ["image", "part", "near_duplicate", "its_part"]
        files["near_duplicates.csv"] = forms.csv(pd.DataFrame(evidence.near_duplicates, columns=columns))
    put(folder, files, pictures, figures.NAMES)


def write_overview(summaries: Sequence[tuple[Study, Summary]], folder: Path) -> None:
    """Write the comparison of several studies, whose own reports lie beside `folder`."""
    only = [summary for _, summary in summaries]
    headers, rows = tables.overview(only)
    rules = tables.thumb(only)
    with theme():
        pictures = studies.of_studies(only)
    context: dict[str, Any] = {
        "summaries": summaries,
        "headers": headers,
        "rows": rows,
        "rules": rules,
        "pictures": pictures,
    }
    context |= {"source": SOURCE, "source_url": SOURCE_URL}
    title = f"{len(only)} studies compared"
    story = [
        pdf.paragraph(title, "title"),
        *([pdf.paragraph("Rules of thumb", "heading"), pdf.table(*rules)] if rules[1] else []),
        *(pdf.figure(picture) for picture in pictures),
        pdf.paragraph("Verdicts", "heading"),
        *(pdf.paragraph(f"{summary.study}: {summary.verdict}") for summary in only),
    ]
    files: dict[str, str | bytes] = {
        "tables/overview.csv": forms.csv(_frame(headers, rows)),
        "tables/overview.tex": forms.latex(headers, rows, "Test metric with 95 % interval.", "overview"),
        "tables/rules.csv": forms.csv(_frame(*rules)),
        "tables/rules.tex": forms.latex(*rules, "Rules of thumb and what was measured.", "rules"),
        "summary.json": _json({"studies": [summary.as_json() for summary in only]}),
        "report.md": render_page("overview.md.j2", context),
        "report.pdf": pdf.document(title, story),
        "index.html": render_page("overview.html.j2", context),
    }
    put(folder, files, pictures, studies.NAMES)


def _frame(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    import pandas as pd

    return pd.DataFrame([list(row) for row in rows], columns=list(headers))


def _tables(summary: Summary) -> dict[str, str]:
    """Return the tables to paste: as numbers in CSV, as text in LaTeX."""
    files = {f"tables/{name}.csv": forms.csv(frame) for name, frame in tables.numbers(summary).items()}
    metric = metric_in_words(summary.metric)
    caption = f"{summary.study}: test {metric} with 95 % interval, cost and verdict by strategy."
    files["tables/results.tex"] = forms.latex(*tables.table(summary), caption, f"results-{summary.study}")
    if summary.pairs:
        caption = f"{summary.study}: paired differences in test {metric}, p-values after Holm."
        files["tables/comparisons.tex"] = forms.latex(
            *tables.pairs(summary), caption, f"comparisons-{summary.study}"
        )
    return files


def _pdf(summary: Summary, pictures: Sequence[Picture], provenance: Sequence[tuple[str, str]]) -> bytes:
    ruling = summary.ruling
    words = [f"Rule of thumb: {ruling.outcome}. {ruling.sentence}"] if ruling else []
    words += [ruling.deciding.sentence] if ruling and ruling.deciding else []
    story = [
        pdf.paragraph(summary.study, "title"),
        pdf.paragraph(summary.question),
        pdf.paragraph(summary.verdict, "verdict"),
        *(pdf.paragraph(text) for text in words),
        *(pdf.paragraph(note, "small") for note in summary.notes),
        pdf.paragraph("Results", "heading"),
        pdf.table(*tables.table(summary)),
        *(pdf.figure(picture) for picture in pictures),
    ]
    if summary.pairs:
        story += [pdf.paragraph("Every pair of strategies", "heading"), pdf.table(*tables.pairs(summary))]
    story.append(pdf.paragraph("Where the numbers come from", "heading"))
    story += [pdf.paragraph(f"{name}: {value}", "small") for name, value in provenance]
    return pdf.document(summary.study, story)


def put(
    folder: Path, files: Mapping[str, str | bytes], pictures: Sequence[Picture], known: Iterable[str] = ()
) -> None:
    """Write all files, the page last: who finds it finds what it names. Earlier figures that it lacks go."""
    contents: dict[str, str | bytes] = {}
    for picture in pictures:
        forms_of: dict[str, str | bytes] = {
            "png": picture.png,
            "svg": picture.svg,
            "csv": forms.csv(picture.data),
        }
        contents |= {f"figures/{picture.name}.{form}": content for form, content in forms_of.items()}
    old = {f"figures/{name}.{form}" for name in known for form in ("png", "svg", "csv")}
    for name, content in (contents | dict(files)).items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    for name in old - set(contents):
        (folder / name).unlink(missing_ok=True)


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


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Return a page made from a template; all that is filled in is escaped."""
    return _environment(template.endswith(".md.j2")).get_template(template).render(context)


@cache
def _environment(markdown: bool) -> Environment:
    """Names of classes and files come from strangers, so all that is filled in is escaped, in both forms."""
    loader = PackageLoader("bench.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escape_markdown if markdown else None,
    )
    script = loader.get_source(environment, "page.js")[0]
    environment.filters["verbatim"] = lambda text: Markup(str(text).replace("```", "` ` `"))  # noqa: S704 (fenced)
    environment.globals["look"] = look
    environment.globals["script"] = Markup(script)  # noqa: S704 (ours)
    environment.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment


def _escape_markdown(value: Any) -> Any:
    """Return text with nothing in it that Markdown or HTML would act on; what is markup already stays."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*|~]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:])", r"\\\1", line))  # noqa: S704 (escaped here)
