"""What is handed out: the wheel is complete, and each clone runs its own code."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is in the extra `dev`")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))
INSTALLED = Path(pytest.__file__).parent.parent  # the folder that all dependencies are in


def run(*command, cwd=ROOT, **variables):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run([*map(str, command)], check=False, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def site_packages(folder):
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel made from the source distribution, so that both are shown to be complete."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (sdist,) = folder.glob("transfer_bench-*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, sdist)
    (built,) = folder.glob("transfer_bench-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel in it, which reads the dependencies from the running one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site_packages(folder) / "dependencies.pth").write_text(f"{INSTALLED}\n")
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", wheel)
    return folder


def test_wheel_holds_the_package_with_its_data(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    sources = [
        path for path in (ROOT / "bench").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= inside
    assert {f"bench/_studies/{path.relative_to(ROOT / 'studies').as_posix()}" for path in STUDIES} <= inside
    assert "bench/py.typed" in inside
    assert any(name.startswith("bench/report/templates/") for name in inside)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)


def test_wheel_holds_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert sorted(top.rpartition(".")[2] for top in tops) == ["bench", "dist-info"]


def test_command_works_in_an_empty_folder(environment, tmp_path):
    listed = run(environment / "bin" / "bench", "list", "studies", cwd=tmp_path)
    assert STUDIES
    assert [path.stem for path in STUDIES if path.stem not in listed] == []
    where = run(environment / "bin" / "python", "-c", "import bench; print(bench.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)


def test_each_clone_runs_its_own_code_on_shared_dependencies(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("one", "two"):
        clone = tmp_path / name
        (clone / "bench").mkdir(parents=True)
        (clone / "bench" / "__init__.py").write_text(f'__version__ = "{len(name)}.{ord(name[0])}"\n')
        for file in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "tools", "studies"):
            copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
            copy(ROOT / file, clone / file)
    script = "import sys; sys.path.insert(0, 'tools'); from environment import *;"
    script += "shared = shared_environments() / key(lowest=False); shared.mkdir(parents=True); print(shared)"
    shared = Path(run(sys.executable, "-c", script, cwd=tmp_path / "one", **cache).strip())
    (shared / "transfer-bench.json").touch()  # as if the dependencies had been installed
    site_packages(shared).parent.mkdir(parents=True)
    site_packages(shared).symlink_to(INSTALLED)

    for name in ("one", "two", "one"):
        run(sys.executable, "tools/environment.py", ".venv", cwd=tmp_path / name, **cache)
    for name in ("one", "two"):
        script = "import bench, numpy; print(bench.__file__, numpy.__file__)"
        where = run(tmp_path / name / ".venv" / "bin" / "python", "-c", script, cwd=tmp_path)
        assert where.split()[0] == str(tmp_path / name / "bench" / "__init__.py")
        assert Path(where.split()[1]).resolve().is_relative_to(INSTALLED.resolve())
