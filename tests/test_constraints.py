"""Every dependency has a lower bound in pyproject.toml and an exact version in constraints.txt."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def load_script():
    """The script that makes environments, as a module."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REQUIREMENTS = [Requirement(r) for r in load_script().requirements()]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
OF_TORCH = ("cuda-", "nvidia-cu", "nvidia-nc", "nvidia-nv", "triton")
PINS = dict(line.split("==") for line in LINES)


@pytest.fixture(scope="module")
def environment():
    return load_script()


def test_constraints_are_sorted_exact_versions_without_addresses():
    assert [
        line for line in LINES if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][A-Za-z0-9.]*", line)
    ] == []
    assert sorted(PINS) == list(PINS)
    assert len(LINES) == len(PINS)


def test_constraints_leave_torch_to_choose_its_cuda_packages():
    assert [name for name in PINS if name.startswith(OF_TORCH)] == []
    assert {"torch", "torchvision"} <= set(PINS)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_pinned_version_is_in_the_range(requirement):
    version = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)
    assert [specifier.operator for specifier in requirement.specifier] == [">="]


def installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def needs(requirement):
    """What a requirement, with its extras, needs on this platform."""
    for need in map(Requirement, metadata.requires(requirement.name) or []):
        if not need.marker or any(need.marker.evaluate({"extra": e}) for e in requirement.extras or {""}):
            yield need


def test_constraints_hold_all_that_is_needed_and_nothing_else():
    if any(installed(name) != version for name, version in PINS.items()):
        pytest.skip("this environment was not made from constraints.txt")
    pending, found = list(REQUIREMENTS), {}
    while pending:
        requirement = pending.pop()
        if not canonicalize_name(requirement.name).startswith(OF_TORCH) and str(requirement) not in found:
            found[str(requirement)] = canonicalize_name(requirement.name)
            pending += needs(requirement)
    assert set(found.values()) == set(PINS)


def test_every_dependency_says_what_for():
    everything = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
    for name in (Requirement(r).name for r in everything):
        assert re.search(rf'^ *"{name}>=.*", +# \S', (ROOT / "pyproject.toml").read_text(), re.MULTILINE), (
            name
        )


def test_set_of_versions_decides_the_environment(environment, monkeypatch, tmp_path):
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    before = {lowest: environment.key(lowest=lowest) for lowest in (False, True)}
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert {lowest: environment.key(lowest=lowest) for lowest in (False, True)} == before

    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text().replace("line-length = 110", "line-length = 99  # and a comment")
    )
    assert environment.key(lowest=False) == before[False]

    with (tmp_path / "constraints.txt").open("a") as constraints:
        constraints.write("zzz==1\n")
    assert environment.key(lowest=False) != before[False]
    assert environment.key(lowest=True) == before[True]

    pyproject.write_text(pyproject.read_text().replace('"torch>=', '"torch>=1'))
    assert environment.key(lowest=True) != before[True]


def test_folder_of_someone_else_is_left_alone(environment, tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(SystemExit, match="was not made by this project"):
        environment.link(tmp_path, tmp_path / "shared")
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sys.version_info = (3, 9, 2)", "Python 3.11 or newer"),
        ("sys.modules['ensurepip'] = None", "has no venv"),
    ],
)
def test_unfit_python_is_told_in_one_line(setting, message):
    script = (
        f"import sys; sys.path.insert(0, 'tools'); import environment; {setting}; environment.check_python()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
