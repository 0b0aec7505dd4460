"""Rooms and their rules: imports run down the list, the heavy libraries stay behind one door each."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A folder imports from itself and from those below it; folders on one line don't know each other.
FLOORS = [
    "__main__",
    "cli",
    "export report experiment",
    "study_record",
    "training tuning",
    "analysis tracking",
    "models",
    "data",
    "strategies",
    "study",
    "system",
    "core",
]
FLOOR = {f"bench.{name}": floor for floor, names in enumerate(FLOORS) for name in names.split()}
FLOOR["bench"] = len(FLOORS)  # the version
DOORS = {"mlflow": "bench.tracking", "optuna": "bench.tuning", "ray": "bench.experiment"}
HEAVY = ["matplotlib", "mlflow", "optuna", "pandas", "sklearn", "timm", "torch"]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text()) for path in sorted((ROOT / "bench").rglob("*.py"))}


def room(module):
    """The folder of the project that a module is in, or None for a module of others."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "bench" else None


def imported(nodes):
    """The names of all modules imported by these nodes, those of `bench` as far as they are modules."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"write absolute imports: line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in TREES else node.module


def run_on_import(body):
    """The statements that run when a module is imported: not those in functions, nor those for types only."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield from run_on_import(
            n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.ExceptHandler)
        )


def test_every_folder_has_a_floor():
    assert {room(module) for module in TREES} == set(FLOOR)


def test_every_folder_says_its_rule():
    unsaid = [name for name, tree in TREES.items() if not ast.get_docstring(tree)]
    assert not unsaid


@pytest.mark.parametrize("module", TREES)
def test_imports_run_down(module):
    own = FLOOR[room(module)]
    for other in imported(ast.walk(TREES[module])):
        its = room(other)
        if its in FLOOR and its != room(module):
            assert FLOOR[its] > own, f"{module} imports {other}, which is not below it"


def test_no_import_cycle():
    graph = {
        module: {name for name in imported(run_on_import(tree.body)) if name in TREES and name != module}
        for module, tree in TREES.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("library", DOORS)
def test_one_folder_imports_a_library(library):
    users = {
        room(module)
        for module, tree in TREES.items()
        if any(name.partition(".")[0] == library for name in imported(ast.walk(tree)))
    }
    assert users == {DOORS[library]}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *(["list", what] for what in ("studies", "tasks", "metrics", "baselines"))],
    ids=" ".join,
)
def test_quick_commands_import_nothing_heavy(arguments, tmp_path):
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))\n"
        "from bench.cli.app import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"]), done.stderr
