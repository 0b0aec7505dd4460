"""The files that were left out, in a few lines however many they are: counts by kind, and the first names."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from bench.core.text import one_line
from bench.data.dataset import Rejected

SHOWN = 10  # files, and kinds, that are named


def summarise(rejected: Sequence[Rejected]) -> list[str]:
    """Return a line for each file, or where they are many for each kind, the commonest first."""
    if len(rejected) <= SHOWN:
        return [one_line(f"{r.name}: {r.reason}") for r in rejected]
    kinds = Counter((PurePath(r.name).suffix.lower(), r.reason) for r in rejected)
    common = kinds.most_common(SHOWN)
    lines = [
        one_line(f"{count:,} {suffix or 'without a suffix'}: {reason}") for (suffix, reason), count in common
    ]
    if others := len(kinds) - len(common):
        count = len(rejected) - sum(count for _, count in common)
        lines.append(f"{count:,} of {others:,} other kinds")
    return [*lines, f"the first: {', '.join(one_line(r.name) for r in rejected[:SHOWN])}"]
