"""Puts a report together: every file is made first, then each put in place, so an old report stays whole."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from reportlab.platypus import Flowable

from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary, summarise
from bench.report import (
    export_formats,
    pdf,
    tables,
    title_facts,
)
from bench.report.figures import study_figures
from bench.report.figures.base import Picture
from bench.report.figures.card import card
from bench.report.figures.style import theme
from bench.report.recipe import Recipe, recipe
from bench.report.templating import (
    as_json_text,
    provenance_rows,
    put,
    render_page,
)
from bench.study.allowance import DEFAULT_STEPS
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS
from bench.study_record import freshness
from bench.study_record.provenance import without_folders
from bench.system.csv_tables import to_csv

log = logging.getLogger(__name__)

# Where on the page figures are shown, and which of these places are folded.
PLACES = {
    "results": ("accuracy",),
    "cost": ("cost",),
    "examples": ("examples", "confused_pairs"),
    "mistakes": ("score_by_class", "gain_by_class", "confusion"),
    "training": ("curves", "tuning", "hyperparameters", "stages"),
}
FOLDS = (("mistakes", "Which mistakes are made"), ("training", "Training and tuning"))
CLASSES_SHOWN = 40
RUNS_SHOWN = 500


def write(evidence: Evidence, folder: Path) -> None:
    """Write the report of one study: tables, summary, figures, `report.md`, `report.pdf`, `index.html`."""
    summary = summarise(evidence)
    with theme():
        pictures = study_figures.of_study(evidence, summary)
        shown_as_link = card(summary, study_figures.stamp_of(evidence, summary))
    headers, rows = tables.table(summary)
    run_headers, runs = tables.runs(evidence)
    made = recipe(evidence, summary)
    context: dict[str, Any] = {
        "recipe": made,
        "facts": title_facts.facts(evidence),
        "samples": title_facts.samples(evidence),
        "numbers": title_facts.numbers(summary),
        "headline": title_facts.headline(summary),
        "shown": {place: [p for p in pictures if p.name in names] for place, names in PLACES.items()},
        "folds": FOLDS,
        "contents": _contents(summary, made, pictures),
        "summary": summary,
        "study": evidence.study,
        "target": without_folders(evidence.study.target.data),
        "default_steps": DEFAULT_STEPS,
        "task": TASKS[evidence.study.task],
        "headers": headers,
        "rows": rows,
        "also": {name: tables.table(other) for name, other in summary.also.items()},
        "further": {name: other.provenance for name, other in evidence.also.items()},
        "pairs": tables.pairs(summary),
        "effects": tables.has_effects(summary),
        "run_headers": run_headers,
        "runs": runs[:RUNS_SHOWN],
        "more_runs": max(0, len(runs) - RUNS_SHOWN),
        "run_pages": evidence.run_pages if evidence.run_pages.startswith(("http://", "https://")) else "",
        "pictures": pictures,
        "classes": summary.classes[:CLASSES_SHOWN],
        "provenance": provenance_rows(evidence.provenance),
        "near_duplicates": len(evidence.near_duplicates),
        "left_out": len(evidence.left_out),
        "command": evidence.command,
    }
    files: dict[str, str | bytes] = {
        **_tables(summary),
        **(made.files if made else {}),
        "runs.csv": to_csv(evidence.runs),
        "trials.csv": to_csv(evidence.trials),
        "summary.json": as_json_text(
            summary.as_json()
            | {"table": {"headers": headers, "rows": rows}, "provenance": evidence.provenance}
            | {"fingerprint": evidence.fingerprint}
        ),
        "report.md": render_page("report.md.j2", context),
        "report.pdf": _pdf(summary, made, pictures, context["provenance"], evidence.date),
        "card.png": shown_as_link,
        "index.html": render_page("report.html.j2", context),
    }
    if evidence.near_duplicates:
        columns = ["image", "part", "near_duplicate", "its_part"]
        files["near_duplicates.csv"] = to_csv(pd.DataFrame(evidence.near_duplicates, columns=columns))
    if evidence.left_out:
        files["left_out.csv"] = to_csv(pd.DataFrame(evidence.left_out, columns=["file", "reason"]))
    if earlier := freshness.set_aside(folder, sum(result.done for result in summary.results)):
        log.warning("the report in %s rests on more final runs than the new one: kept in %s", folder, earlier)
    put(folder, files, pictures, study_figures.NAMES)


def _contents(summary: Summary, made: Recipe | None, pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Return the places of the page that its contents name: identifiers and words."""
    drawn = {picture.name for picture in pictures}
    there = {
        "verdict": ("Verdict", not summary.smoke),
        "results": ("Results", True),
        "recipe": ("Recipe", made is not None),
        "cost": ("Cost", not drawn.isdisjoint(PLACES["cost"])),
        "examples": ("Examples", not drawn.isdisjoint(PLACES["examples"])),
        "mistakes": ("Mistakes", not drawn.isdisjoint(PLACES["mistakes"])),
        "training": ("Training", not drawn.isdisjoint(PLACES["training"])),
        "pairs": ("Pairs", bool(summary.pairs)),
        "runs": ("Runs", True),
        "protocol": ("Protocol", True),
        "provenance": ("Origin", True),
    }
    return [(place, name) for place, (name, is_there) in there.items() if is_there]


def _tables(summary: Summary) -> dict[str, str]:
    """Return the tables to paste: as numbers in CSV, as text in LaTeX."""
    files = {f"tables/{name}.csv": to_csv(frame) for name, frame in tables.numbers(summary).items()}
    for other, further in summary.also.items():
        files[f"tables/results-{other}.csv"] = to_csv(tables.numbers(further)["results"])
    metric = METRICS[summary.metric].label
    caption = f"{summary.study}: test {metric} with 95 % interval, cost and verdict by strategy."
    files["tables/results.tex"] = export_formats.latex(
        *tables.table(summary), caption, f"results-{summary.study}"
    )
    if summary.pairs:
        caption = f"{summary.study}: paired differences in test {metric}, p-values of equality after Shaffer."
        files["tables/comparisons.tex"] = export_formats.latex(
            *tables.pairs(summary), caption, f"comparisons-{summary.study}"
        )
    return files


def _further_in_pdf(summary: Summary) -> list[Any]:
    """Return what a document says of further test sets."""
    return [
        part
        for name, further in summary.also.items()
        for part in (
            pdf.paragraph(f"Also tested on {name}", "heading"),
            pdf.paragraph(further.verdict),
            *(pdf.paragraph(note, "small") for note in further.notes),
            pdf.table(*tables.table(further)),
        )
    ]


def _pdf(
    summary: Summary,
    made: Recipe | None,
    pictures: Sequence[Picture],
    provenance: Sequence[tuple[str, str]],
    date: str,
) -> bytes:
    story = [
        *([pdf.paragraph(summary.verdict, "banner")] if summary.smoke else []),
        pdf.paragraph(summary.study, "title"),
        pdf.paragraph(summary.question),
        *_answer(summary),
        *(pdf.paragraph(note, "small") for note in summary.notes),
        *(pdf.paragraph(f"{e.outcome}: {e.sentence} ({e.source})", "small") for e in summary.expected),
        pdf.paragraph("Results", "heading"),
        pdf.table(*tables.table(summary)),
        *_further_in_pdf(summary),
        *(_recipe(made) if made else []),
        *(pdf.figure(picture) for picture in pictures),
    ]
    if summary.pairs:
        story += [pdf.paragraph("Every pair of strategies", "heading"), pdf.table(*tables.pairs(summary))]
    story.append(pdf.paragraph("Where the numbers come from", "heading"))
    story += [pdf.paragraph(f"{name}: {value}", "small") for name, value in provenance]
    return pdf.document(summary.study, story, date)


def _answer(summary: Summary) -> list[Flowable]:
    """Return what to use first, then the answer to the question, and what would settle what is open."""
    if summary.smoke:
        return []
    chosen, ruling, settling = summary.recommendation, summary.ruling, summary.settling
    first = chosen.sentence if chosen else summary.verdict
    words = [summary.verdict] if chosen else []
    words += [f"Rule of thumb: {ruling.outcome}. {ruling.sentence}"] if ruling else []
    words += [ruling.deciding.sentence] if ruling and ruling.deciding else []
    words += [f"{settling.sentence} {settling.command}".strip()] if settling else []
    return [pdf.paragraph(first, "verdict"), *map(pdf.paragraph, words)]


def _recipe(made: Recipe) -> list[Flowable]:
    if not made.rows:
        return []
    where = f"The best run of {made.strategy} is seed {made.seed}: recipe.yaml has all its settings."
    table = pdf.table(made.headers, made.rows)
    return [pdf.paragraph("Recipe", "heading"), table, pdf.paragraph(where, "small")]
