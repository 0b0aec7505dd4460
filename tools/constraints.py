"""Write constraints.txt: the newest versions that the dependencies resolve to, as `name==version` lines."""

import json
import re
import subprocess
import sys

from environment import ROOT, requirements

HEADER = """\
# Exact versions of all that pyproject.toml's dependencies resolve to; `make constraints` writes this file.
# Left out: the CUDA packages, which torch itself pins, so that other platforms resolve too.
"""
OF_TORCH = ("cuda-", "nvidia-cu", "nvidia-nc", "nvidia-nv", "triton")


def main() -> None:
    """Resolve with pip, without installing anything, and write the file."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    report = subprocess.run([*pip, *requirements()], check=True, stdout=subprocess.PIPE).stdout
    resolved = [package["metadata"] for package in json.loads(report)["install"]]
    versions = {re.sub(r"[-_.]+", "-", data["name"]).lower(): data["version"] for data in resolved}
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions) if not name.startswith(OF_TORCH)]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
