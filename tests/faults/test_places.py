"""Folders, users and clocks as they are on other people's machines: it works, or says so in a line."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

from bench.data.loading import load
from bench.study.schema import Target
from tests.faults.test_kills import count_differences, ended_runs
from tests.support.tiny_bench import clock_is_set_back, private_umask
from tests.support.unprivileged import only_to_read, unprivileged

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(bench, tmp_path_factory):
    return bench.finish(tmp_path_factory.mktemp("undisturbed"), "--jobs", "1")


def said(log):
    """The lines on standard output and error; none of them is of a traceback."""
    text = log.read_text()
    assert "Traceback" not in text, text
    return text.splitlines()


def test_blanks_and_letters_of_other_scripts_in_paths_longer_than_a_store_keeps(bench, expected, tmp_path):
    home = tmp_path / "Ordner für Läufe, № 1 'é' 数据 %20 #?"
    images = home.joinpath("Bilder é", *["sehr lang" * 20] * 4)
    assert len(str(images)) > 700
    shutil.copytree(bench.folder / "images", images)
    found = bench.finish(home, "--jobs", "1", "--data", images, BENCH_CACHE=str(home / "Zwischen speicher"))
    named = ["study", "run_key"]
    found = [rows.drop(columns=named) for rows in found]
    assert count_differences([rows.drop(columns=named) for rows in expected], found) == (0, 0)
    assert not [line for line in said(home / "log") if "bench: " in line], "nothing is refused"


def test_reports_among_the_images_and_control_characters_in_names(bench, tmp_path):
    """The second time the reports of the first lie among the classes, one of which ends a line in CSV."""
    images = tmp_path / "images"
    shutil.copytree(bench.folder / "images", images)
    (images / "red").rename(images / "r\re=1+1")
    (images / "blue" / "0.png").rename(images / "blue" / "\x1b[31m0\r.png")
    place = ("--jobs", "1", "--data", images, "--output", images / "reports", "--strategy", "linear_probe")
    runs = []
    for log in (tmp_path / "first", tmp_path / "second"):
        process = bench.start(tmp_path / "home", *place, log=log)
        process.join(300)
        assert process.exitcode == 0, log.read_text()[-3000:]
        assert "3 classes" in "".join(said(log))
        (table,) = (images / "reports").glob("tiny-*/runs.csv")
        runs.append(table.read_bytes())
    assert runs[0] == runs[1], "nothing is done twice"
    assert "reports: holds what bench wrote" in (tmp_path / "second").read_text()
    assert "\x1b[31m" not in (tmp_path / "second").read_text()


def test_a_private_umask_is_kept_and_no_secret_written(bench, expected, tmp_path):
    secret = {"AWS_SECRET_ACCESS_KEY": "xyzzy-plugh-42", "MLFLOW_TRACKING_PASSWORD": "xyzzy-plugh-43"}
    own = {"BENCH_CACHE": str(tmp_path / "cache"), **secret}
    found = bench.finish(tmp_path, "--jobs", "1", before=private_umask, **own)
    assert count_differences(expected, found) == (0, 0)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "log"]
    assert len(files) > 50
    assert [p for p in files if stat.S_IMODE(p.stat().st_mode) & 0o077] == []
    assert [p for p in tmp_path.rglob("*") if p.is_file() and b"xyzzy-plugh" in p.read_bytes()] == []


def test_a_clock_that_is_set_back(bench, expected, tmp_path):
    found = bench.finish(tmp_path, "--jobs", "1", before=clock_is_set_back)
    assert count_differences(expected, found) == (0, 0)
    keys, running = ended_runs(tmp_path)
    assert (len(keys), running) == (len(set(keys)), 0)
    again = bench.finish(tmp_path, "--jobs", "1", before=clock_is_set_back)
    assert count_differences(expected, again) == (0, 0)
    assert len(ended_runs(tmp_path)[0]) == len(keys), "nothing is done twice"


def test_a_home_that_there_is_not(bench, expected, tmp_path):
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""}
    process = bench.start(tmp_path / "refused", "--jobs", "1", BENCH_CACHE="", **nowhere)
    process.join(120)
    assert process.exitcode == 2
    assert "BENCH_CACHE: can't create /proc/nowhere" in said(tmp_path / "refused" / "log")[-1]
    found = bench.finish(tmp_path / "works", "--jobs", "1", BENCH_CACHE=str(tmp_path / "cache"), **nowhere)
    assert count_differences(expected, found) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home():
    code = (
        "import os; from bench.core import errors; from bench.system import locations\n"
        "os.environ.pop('HOME', None)\n"
        "os.environ.update(BENCH_CACHE='', XDG_CACHE_HOME=''); os.setuid(54321)\n"
        "try: locations.cache()\nexcept errors.InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "BENCH_CACHE: there is no home folder to put it in; name a writable folder\n"


def test_a_disk_that_can_only_be_read(bench, expected, tmp_path, small_disk):
    (disk, mount_again), log = small_disk, tmp_path / "log"

    def ends_with(*arguments, **environment):
        process = bench.start(disk / "home", "--jobs", "1", *arguments, log=log, **environment)
        process.join(120)
        return process.exitcode

    found = bench.finish(disk / "home", "--jobs", "1", BENCH_CACHE=str(disk / "cache"))
    assert count_differences(expected, found) == (0, 0)
    mount_again("ro")
    assert ends_with("--seeds", "4") == 2
    assert "no folder that can be written to (read-only file system); name another one" in said(log)[-1]
    assert ends_with("--seeds", "4", "--output", tmp_path / "reports") == 2
    assert "ead-only" in said(log)[-1]
    log.unlink()
    elsewhere = tmp_path / "elsewhere"
    found = bench.finish(elsewhere, "--jobs", "1", BENCH_CACHE=str(disk / "cache"))
    assert count_differences(expected, found) == (0, 0), "a cache that can only be read is enough"
    said(elsewhere / "log")
    measured = ("--strategy", "full", "--set", "training.precision=auto", "--output", tmp_path / "measured")
    process = bench.start(tmp_path / "measured", "--jobs", "1", *measured, BENCH_CACHE=str(disk / "cache"))
    process.join(120)
    assert process.exitcode == 0, said(tmp_path / "measured" / "log")
    mount_again("rw")
    assert ends_with() == 0, log.read_text()[-3000:]


def test_a_home_of_another_user_that_can_only_be_read(bench, expected, tmp_path):
    """Its report is drawn, by its name and as `BENCH_HOME`; nothing of it is changed, or registered."""
    home = tmp_path / "theirs"
    assert count_differences(expected, bench.finish(home, "--jobs", "1")) == (0, 0)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}

    def ends_with(*arguments, bench_home):
        command = [sys.executable, "-m", "bench", *arguments]
        environment = {**os.environ, "BENCH_HOME": str(bench_home)}
        return subprocess.run(
            [*unprivileged(), *command],
            cwd=bench.folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    uri = ("--tracking-uri", f"sqlite:///{home}/mlflow.db")
    with only_to_read(home):
        for own, where in ((home, ()), (tmp_path / "mine", uri)):
            output = tmp_path / f"reports {own.name}"
            ended = ends_with("report", "--study", "tiny.yaml", *where, "--output", output, bench_home=own)
            assert ended.returncode == 0, ended.stderr
            assert "can only be read; the report is of a copy of what it holds now" in ended.stderr
            assert "Traceback" not in ended.stderr
            assert (output / "tiny" / "runs.csv").read_bytes() == (
                home / "reports/tiny/runs.csv"
            ).read_bytes()
        refused = ends_with("register", "--study", "tiny.yaml", *uri, bench_home=tmp_path / "mine")
    assert refused.returncode == 2
    assert "the run store can't be opened" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_copied_cache_that_can_only_be_read(bench, small_disk, monkeypatch):
    """The files of a copy have times of their own, which can't be put right there."""
    (disk, mount_again), target = small_disk, Target(data="unused", image_size=32)
    monkeypatch.setenv("BENCH_CACHE", str(disk / "cache"))
    code = (
        "import sys; from pathlib import Path; from bench.data.loading import load; "
        "from bench.study.schema import Target; "
        "print(load(Target(data='unused', image_size=32), Path(sys.argv[1])).digest)"
    )  # in a process of its own, which leaves no file of the disk open
    command = [sys.executable, "-c", code, bench.folder / "images"]
    before = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (pixels,) = disk.glob("cache/images/*/images.u8")
    os.utime(pixels, (1, 1))
    mount_again("ro")
    assert load(target, bench.folder / "images").digest == before


def test_the_same_numbers_in_another_process_from_nothing(bench, expected, tmp_path):
    found = bench.finish(tmp_path, "--jobs", "1", "--deterministic", BENCH_CACHE=str(tmp_path / "cache"))
    assert count_differences(expected, found) == (0, 0)
