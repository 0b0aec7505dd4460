"""Imports point one way, down a table of layers; the heavy libraries stay behind one door each."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the top down: a module imports from its own layer and from those below. The longest name counts.
LAYERS = {
    "command line": "__main__ cli",
    "what a command does": "commands runner recording gathering publishing serving progress report",
    "choosing and doing runs": "planning tuning worker predictions",
    "training": "training movement together probe inputs optimizers targets",
    "parts": "strategies models data tracking analysis features rows memory execution checkpoints",
    "plain types": "jobs container interrupts errors registry paths standing spec study environment "
    "data.dataset metrics palette",
}
PLACE = {f"bench.{name}": layer for layer, names in LAYERS.items() for name in names.split()}
PLACE["bench"] = "plain types"
DOORS = {"mlflow": "bench.tracking.store", "optuna": "bench.tuning"}
HEAVY = ["matplotlib", "mlflow", "optuna", "pandas", "sklearn", "timm", "torch"]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text()) for path in sorted((ROOT / "bench").rglob("*.py"))}


def place(module):
    """The name in the table that a module falls under, or None. `bench` stands for no other module."""
    while module not in PLACE and module.count(".") > 1:
        module = module.rpartition(".")[0]
    return module if module in PLACE else None


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


def test_every_module_is_in_the_table():
    unlisted = [module for module in TREES if place(module) is None]
    assert not unlisted, (
        f"add {', '.join(unlisted)} to LAYERS in {Path(__file__).name}, where the imports allow it"
    )


def test_every_name_in_the_table_exists():
    assert [name for name in PLACE if name not in map(place, TREES)] == []


@pytest.mark.parametrize("module", TREES)
def test_imports_point_down(module):
    depth = list(LAYERS).index
    own = PLACE[place(module)]
    for other in imported(ast.walk(TREES[module])):
        if name := place(other):
            its = PLACE[name]
            assert depth(its) >= depth(own), f"{module} ({own}) imports {other}, which is above it ({its})"


@pytest.mark.parametrize("module", [m for m in TREES if PLACE.get(place(m)) == "parts"])
def test_parts_do_not_know_each_other(module):
    for other in imported(ast.walk(TREES[module])):
        if PLACE.get(place(other)) == "parts":
            assert place(other) == place(module), f"{module} imports {other}: join them in a layer above"


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
def test_one_file_imports_a_library(library):
    users = [
        m
        for m, tree in TREES.items()
        if any(n.partition(".")[0] == library for n in imported(ast.walk(tree)))
    ]
    assert users == [DOORS[library]]


@pytest.mark.parametrize("arguments", [["--help"], ["list", "studies"]], ids=" ".join)
def test_quick_commands_import_nothing_heavy(arguments, tmp_path):
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))\n"
        "from bench.cli import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["[]"]), done.stderr
