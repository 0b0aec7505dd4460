"""Whether the user wants to see where errors come from."""

import os


def debugging() -> bool:
    """Say whether tracebacks are wished for: `BENCH_DEBUG`, which `--debug` sets for all processes."""
    return os.environ.get("BENCH_DEBUG", "") not in {"", "0"}
