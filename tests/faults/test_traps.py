"""Nothing of the current folder is ever imported, by none of the processes that `bench` starts."""

import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

LOADED_BY_PYTHON = {"sys", "builtins", "__main__"}  # before there is a current folder on the path
THIRD = (
    "mlflow",
    "torch",
    "timm",
    "optuna",
    "numpy",
    "uvicorn",
    "fastapi",
    "sqlalchemy",
    "sitecustomize",
    "yaml",
)
STUDY = """
question: q
source: {model: timm/test_efficientnet, weights: weights.pth}
target: {data: images, image_size: 32}
strategies: [feature_extractor, full]
training: {epochs: 1, batch_size: 4, precision: fp32}
tuning: {trials: 1}
seeds: 1
"""


@pytest.fixture
def trapped(bench, tmp_path):
    """A folder with a study and a file for each module that may be imported, which leaves its name behind."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("images", "weights.pth"):
        (folder / name).symlink_to(bench.folder / name)
    (folder / "s.yaml").write_text(STUDY)
    log = tmp_path / "sprung"
    for name in (sys.stdlib_module_names - LOADED_BY_PYTHON) | set(THIRD):
        spring = f"open({str(log)!r}, 'a').write(__name__ + ' ')\n"
        (folder / f"{name}.py").write_text(f"{spring}raise ImportError('a trap: {name}')\n")
    return folder, log


@pytest.fixture
def script(tmp_path):
    """What an installation puts beside Python as `bench`."""
    file = tmp_path / "bin" / "bench"
    file.parent.mkdir()
    file.write_text("from bench.cli.app import main\nif __name__ == '__main__':\n    main()\n")
    return [sys.executable, str(file)]


def bench_in(folder, command, home):
    environment = {**os.environ, "BENCH_HOME": str(home)}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.slow
def test_a_run_in_two_processes_and_its_report(trapped, script, tmp_path):
    folder, log = trapped
    for command in (["check"], ["run", "--jobs", "2"], ["report"]):
        done = bench_in(folder, [*script, *command, "--study", "s.yaml"], tmp_path / "home")
        assert (done.returncode, log.exists()) == (0, False), done.stderr[-2000:]


def test_the_module_bench(trapped, tmp_path):
    """What `python -m` itself loads, before the first line of `bench`, only `python -P -m` protects."""
    folder, log = trapped
    code = "import pkgutil, runpy, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    for name in loaded.stdout.split():
        (folder / f"{name}.py").unlink(missing_ok=True)
    assert len(list(folder.glob("*.py"))) > 150
    done = bench_in(folder, [sys.executable, "-m", "bench", "list", "strategies"], tmp_path / "home")
    assert (done.returncode, log.exists()) == (0, False), done.stderr[-2000:]


def test_children_of_multiprocessing(trapped, tmp_path):
    """The fork server and the tracker of resources: one Python each, started with `-c`."""
    folder, log = trapped
    code = tmp_path / "bin" / "children.py"
    code.parent.mkdir()
    code.write_text(
        "import multiprocessing\nfrom bench.system.import_path import leave_out_current_folder\n"
        "if __name__ == '__main__':\n    leave_out_current_folder()\n"
        "    context = multiprocessing.get_context('forkserver')\n"
        "    child = context.Process(target=print, args=('here',))\n    child.start()\n    child.join()\n"
    )
    done = bench_in(folder, [sys.executable, str(code)], tmp_path / "home")
    assert (done.stdout, log.exists()) == ("here\n", False), done.stderr[-2000:]


@pytest.mark.slow
def test_the_ui(trapped, script, tmp_path, free_port):
    folder, log = trapped
    environment = {**os.environ, "BENCH_HOME": str(tmp_path / "home")}
    environment.pop("PYTHONSAFEPATH", None)
    command = [*script, "ui", "--port", str(free_port)]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert str(free_port) in process.stdout.readline()
        page = urllib.request.urlopen(f"http://127.0.0.1:{free_port}/", timeout=60).read()
        assert b"<html" in page
        time.sleep(1)  # for what is started behind the page
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert not log.exists(), log.read_text()
