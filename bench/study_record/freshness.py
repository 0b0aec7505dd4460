"""A report that stands: what it says, read from its `summary.json`; writing it again would change nothing."""

import itertools
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


def set_aside(folder: Path, runs: int) -> Path | None:
    """Move a report away that rests on more final runs than the one that is to take its place.

    A store that lost results, or a command for some strategies only, must not cost the report that had all.

    Args:
        folder: of the report.
        runs: final runs that are done, of the new one.

    Returns:
        Where the earlier report is now, or None if it has no more runs, or there is none.
    """
    standing = read(folder)
    if standing is None or sum(result["done"] for result in standing["results"]) <= runs:
        return None
    places = (folder.with_name(f"{folder.name}-earlier-{number}") for number in itertools.count(1))
    place = next(path for path in places if not path.exists())
    folder.rename(place)
    return place


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
