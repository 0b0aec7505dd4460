"""Make a virtual environment for this clone: dependencies from one shared by all clones, `bench` from here.

The dependencies take 6 GB and minutes, so each set of versions is installed once, in the user's cache folder.
A clone gets a thin environment that reads them from there, and `bench` from the clone's own tree.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "transfer-bench.json"  # inside an environment: what it was made from
LEFT_OUT = {"dashboard"}  # extras that only show what there is: no clone needs them, and none is made anew
LAYOUT = 2  # raise it when an environment of the same versions would be made differently


def main() -> None:
    """Make or renew an environment; do nothing when it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where this clone's environment goes, for example .venv")
    parser.add_argument(
        "--lowest", action="store_true", help="the lowest versions that pyproject.toml allows"
    )
    parser.add_argument("--prune", action="store_true", help="remove all other shared environments")
    options = parser.parse_args()
    check_python()
    shared = shared_environments() / key(lowest=options.lowest)
    with alone(shared):
        if not (shared / MARK).exists():
            install_dependencies(shared, lowest=options.lowest)
    if options.prune:
        prune(keep={key(lowest=False), key(lowest=True)})
    link(options.folder.absolute(), shared)


def check_python() -> None:
    """Exit with one line unless this Python is new enough and can make environments."""
    if sys.version_info < (3, 11):
        running = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"error: Python 3.11 or newer is needed, {sys.executable} is {running}; add PYTHON=python3.12"
        )
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"error: {sys.executable} has no venv; on Debian and Ubuntu: apt-get install python3-venv")


def shared_environments() -> Path:
    """Return the folder that holds a shared environment for each set of versions."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transfer-bench" / "venv"


def requirements() -> list[str]:
    """Return all that pyproject.toml asks for, extras included but for those that are left out."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        *project["dependencies"],
        *(
            r
            for name, extra in project["optional-dependencies"].items()
            if name not in LEFT_OUT
            for r in extra
        ),
    ]


def key(*, lowest: bool) -> str:
    """Return a name for the set of versions: it changes with the interpreter and with what is asked for."""
    versions = "" if lowest else (ROOT / "constraints.txt").read_text(encoding="utf-8")
    parts = [LAYOUT, sys.version, sys.base_prefix, sys.platform, sorted(requirements()), versions]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return f"lowest-{digest}" if lowest else digest


@contextlib.contextmanager
def alone(shared: Path) -> Iterator[None]:
    """Keep other clones from making the same environment at the same time."""
    import fcntl

    shared.parent.mkdir(parents=True, exist_ok=True)
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install_dependencies(shared: Path, *, lowest: bool) -> None:
    """Install the dependencies, without `bench` itself; the mark comes last, so a broken one is made anew."""
    print(f"Installing the dependencies into {shared} (once: 6 GB, some minutes) ...", flush=True)
    venv.create(shared, clear=True, symlinks=True, with_pip=True)
    pip = [str(shared / "bin" / "python"), "-m", "pip", "install", "-qq"]
    # Bytecode now: uv leaves it to the first import, and where Python may not write it, to every one (20 s).
    uv = [str(shared / "bin" / "uv"), "pip", "install", "--quiet", "--no-cache", "--compile-bytecode"]
    uv += ["--python", str(shared)]
    run([*pip, "uv"])
    if lowest:  # of what is named here, while what that needs is the newest
        run([*uv, "--resolution", "lowest-direct", *requirements()])
    else:
        held = ["--constraint", str(ROOT / "constraints.txt"), *requirements()]
        if run([*uv, *held], check=False):
            print("uv could not; pip, which knows about mirrors in pip.conf, takes longer ...", flush=True)
            run([*pip, *held])
    (shared / MARK).write_text(json.dumps(requirements()), encoding="utf-8")


def link(folder: Path, shared: Path) -> None:
    """Make the clone's thin environment: `bench` editable from this tree, all else from the shared one."""
    mark, wanted = folder / MARK, json.dumps([str(ROOT), str(folder), str(shared)])
    if folder.exists() and not mark.exists():
        sys.exit(f"error: {folder} was not made by this project; remove it, or add VENV=.venv-bench")
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return
    venv.create(folder, clear=True, symlinks=True)
    mark.touch()
    site = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    (folder / site / "shared.pth").write_text(f"import site; site.addsitedir({str(shared / site)!r})\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq"]
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    mark.write_text(wanted, encoding="utf-8")


def prune(keep: set[str]) -> None:
    """Remove the shared environments of other sets of versions."""
    for folder in shared_environments().iterdir():
        if folder.is_dir() and folder.name not in keep:
            shutil.rmtree(folder)


def run(command: list[str], *, check: bool = True) -> int:
    """Run a command and return its exit status; where checked, end with one line if it isn't 0."""
    status = subprocess.run(command, check=False, env={"UV_HTTP_TIMEOUT": "180", **os.environ}).returncode
    if status and check:
        sys.exit(f"error: exit status {status} from: {' '.join(command[:8])} ...")
    return status


if __name__ == "__main__":
    main()
