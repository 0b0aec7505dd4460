"""A report that stands: what it says, read from its `summary.json`; drawing it anew would change nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.versions import REPORT

PUBLISHED = "bench.published"  # the tag of a study's run whose report is among its files


def read(folder: Path) -> dict[str, Any] | None:
    """Return what a report's `summary.json` holds, or None where there is no whole report.

    `index.html` is written last, so where it is, all that it names was written.
    """
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and (folder / "index.html").is_file() else None


def is_published(tags: Mapping[str, str], fingerprint: str) -> bool:
    """Say whether the report of the runs with this fingerprint is in the store, by its tags."""
    return tags.get(PUBLISHED) == published(fingerprint)


def published(fingerprint: str) -> str:
    """Return what the tag says once the report of the runs with this fingerprint is in the store."""
    return f"{REPORT} {fingerprint}"


def stands(folder: Path, fingerprint: str) -> bool:
    """Say whether the report in a folder is of the runs with this fingerprint."""
    found = read(folder)
    return found is not None and (found.get("version"), found.get("fingerprint")) == (REPORT, fingerprint)
