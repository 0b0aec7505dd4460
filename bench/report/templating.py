"""From a template to a page, escaped for what it is; files written whole."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.core.text import escape_markdown, show_controls
from bench.core.versions import REPORT
from bench.report.figures.base import Picture
from bench.report.figures.style import look
from bench.system.csv_tables import to_csv
from bench.system.files import replacing
from bench.system.locations import mark


def as_frame(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a table as a data frame."""
    import pandas as pd

    return pd.DataFrame([list(row) for row in rows], columns=list(headers))


def put(
    folder: Path, files: Mapping[str, str | bytes], pictures: Sequence[Picture], known: Iterable[str] = ()
) -> None:
    """Write all files, the page last: who finds it finds what it names. Earlier figures that it lacks go."""
    contents: dict[str, str | bytes] = {}
    for picture in pictures:
        forms_of: dict[str, str | bytes] = {
            "png": picture.png,
            "svg": picture.svg,
            "csv": to_csv(picture.data),
        }
        contents |= {f"figures/{picture.name}.{form}": content for form, content in forms_of.items()}
    folder.mkdir(parents=True, exist_ok=True)
    mark(folder)
    old = {f"figures/{name}.{form}" for name in known for form in ("png", "svg", "csv")}
    for name, content in (contents | dict(files)).items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    for name in old - set(contents):
        (folder / name).unlink(missing_ok=True)


def as_json_text(value: Mapping[str, Any]) -> str:
    """Return `summary.json`: what a report says, and its version."""
    return json.dumps({"version": REPORT, **value}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def provenance_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
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
        finalize=_for_markdown if markdown else _for_html,
    )
    script = loader.get_source(environment, "page.js")[0]
    environment.filters["verbatim"] = lambda text: Markup(show_controls(str(text)).replace("```", "` ` `"))  # noqa: S704 (fenced)
    environment.globals["look"] = look
    environment.globals["script"] = Markup(script)  # noqa: S704 (ours)
    environment.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment


def _for_html(value: Any) -> Any:
    """Return text whose control characters are seen and do nothing; Jinja escapes the rest."""
    return show_controls(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _for_markdown(value: Any) -> Any:
    """Return text with nothing in it that Markdown or HTML would act on; what is markup already stays."""
    return value if isinstance(value, Markup) else Markup(escape_markdown(str(value)))  # noqa: S704 (escaped here)
