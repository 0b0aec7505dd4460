"""The report that compares several studies."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from bench.analysis.rules_of_thumb import SOURCE, SOURCE_URL, Outcome
from bench.analysis.summary import Summary
from bench.analysis.verdict import SMOKE_TEST
from bench.core.text import listed
from bench.report import (
    export_formats,
    pdf,
    tables,
)
from bench.report.figures import studies
from bench.report.figures.style import theme
from bench.report.templating import (
    as_frame,
    as_json_text,
    put,
    render_page,
)
from bench.study.schema import Study
from bench.system.csv_tables import to_csv


def write_overview(summaries: Sequence[tuple[Study, Summary]], folder: Path) -> None:
    """Write the comparison of several studies, whose own reports lie beside `folder`."""
    only = [summary for _, summary in summaries]
    headers, rows = tables.overview(only)
    rules = tables.thumb(only)
    smoke = SMOKE_TEST if any(summary.smoke for summary in only) else ""
    with theme():
        pictures = [] if smoke else studies.of_studies(only)
    context: dict[str, Any] = {
        "summaries": summaries,
        "headers": headers,
        "rows": rows,
        "rules": rules,
        "pictures": pictures,
        "smoke": smoke,
        "headline": headline(only),
    }
    context |= {"source": SOURCE, "source_url": SOURCE_URL}
    title = f"{len(only)} studies compared"
    story = [
        *([pdf.paragraph(smoke, "banner")] if smoke else []),
        pdf.paragraph(title, "title"),
        *([] if smoke else [pdf.paragraph(line) for line in headline(only)]),
        *([pdf.paragraph("Rules of thumb", "heading"), pdf.table(*rules)] if rules[1] else []),
        *(pdf.figure(picture) for picture in pictures),
    ]
    if not smoke:
        story.append(pdf.paragraph("The studies", "heading"))
        story += [pdf.paragraph(f"{summary.study}: {_said(summary)}") for summary in only]
    files: dict[str, str | bytes] = {
        "tables/overview.csv": to_csv(as_frame(headers, rows)),
        "tables/overview.tex": export_formats.latex(
            headers, rows, "Test metric with 95 % interval.", "overview"
        ),
        "tables/rules.csv": to_csv(as_frame(*rules)),
        "tables/rules.tex": export_formats.latex(*rules, "Rules of thumb and what was measured.", "rules"),
        "summary.json": as_json_text({"studies": [summary.as_json() for summary in only]}),
        "report.md": render_page("overview.md.j2", context),
        "report.pdf": pdf.document(title, story),
        "index.html": render_page("overview.html.j2", context),
    }
    put(folder, files, pictures, studies.NAMES)


def _said(summary: Summary) -> str:
    return summary.recommendation.sentence if summary.recommendation else summary.verdict


def headline(summaries: Sequence[Summary]) -> list[str]:
    """Return what the studies say together: what is recommended how often, and what became of the rules."""
    chosen = Counter(s.recommendation.strategy for s in summaries if s.recommendation)
    ruled = Counter(s.ruling.outcome for s in summaries if s.ruling)
    total = len(summaries)
    often = [f"{name} in {count} of {total}" for name, count in chosen.most_common()]
    lines = [
        f"Recommended: {listed(often)}." if often else f"None of {total} studies allows a recommendation."
    ]
    if ruled:
        outcomes = [f"{outcome} in {ruled[outcome]}" for outcome in get_args(Outcome) if ruled[outcome]]
        told = f"{listed(outcomes)} of {ruled.total()} studies that put one to the test"
        lines.append(f"The rule of thumb is {told}.")
    return lines
