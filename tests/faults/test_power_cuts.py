"""The power fails while a study runs: what was said to be done is on the disk, and it can be completed.

A real ext4 in a file is shut down, all that was not written out yet is lost, and it is mounted again.
"""

import fcntl
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.tracking.operations import Close
from bench.tracking.outbox import Outbox
from tests.faults.test_kills import count_differences, ended_runs
from tests.support.tiny_bench import one_thread, rows

pytestmark = pytest.mark.slow

CUTS, CUTS_OF_A_STUDY = int(os.environ.get("BENCH_POWER_CUTS", "20")), 4
SHORT = ("--jobs", "1", "--strategy", "full,linear_probe", "--trials", "2", "--seeds", "2", "--epochs", "3")
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # linux/fs/ext4/ext4.h


class Disk:
    """A disk whose power can be cut."""

    def __init__(self, folder):
        self.image, self.folder = folder / "disk.img", folder / "disk"
        self.folder.mkdir()
        with self.image.open("wb") as file:
            file.truncate(600 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True, capture_output=True)

    def cut(self):
        handle = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(handle)

    def unmount(self):
        for _ in range(50):  # who had files open has just been killed
            if subprocess.run(["umount", self.folder], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", self.folder], check=False)

    def power_on(self):
        self.unmount()
        self.mount()


@pytest.fixture
def disk(tmp_path):
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can cut the power of a file system")
    if not shutil.which("mkfs.ext4") or not Path("/dev/loop-control").exists():
        pytest.skip("there is no ext4 or no loop device here")
    try:
        made = Disk(tmp_path)
        (made.folder / "not waited for").touch()
        made.cut()
        made.power_on()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted and cut off here: {error}")
    assert not (made.folder / "not waited for").exists(), "what was not waited for must be lost"
    yield made
    made.unmount()


def start(bench, home, log):
    """Begin the study, with all that it writes, caches too, on the disk of its home."""
    return bench.start(home, *SHORT, log=log, before=one_thread, BENCH_CACHE=str(home / "cache"))


def finish(bench, home, log):
    process = start(bench, home, log)
    process.join(300)
    assert process.exitcode == 0, log.read_text()[-3000:]
    return rows(home)


def said_to_be_done(home):
    """The runs that the store says have ended, at a moment at which it may be half made."""
    try:
        return set(ended_runs(home)[0])
    except sqlite3.OperationalError:
        return set()


def test_power_is_cut_at_any_moment(bench, tmp_path, disk, tell):
    """Once in each part of a study's time, as long as this machine takes for it; then it is completed."""
    draw, log = random.Random("power"), tmp_path / "log"
    bench.start(tmp_path, *SHORT, "--dry-run", log=log).join()  # what all others are forked from has begun
    began = time.monotonic()
    expected = finish(bench, tmp_path / "undisturbed", log)
    part = (time.monotonic() - began) / CUTS_OF_A_STUDY
    cuts = studies = lost = different = repeated = 0
    while cuts < CUTS:
        home, rest = disk.folder / str(studies), 0.0
        studies += 1
        process = start(bench, home, log)
        for _ in range(min(CUTS_OF_A_STUDY, CUTS - cuts)):
            moment = draw.random()
            process.join(part * (rest + moment))
            rest = 1 - moment
            if process.exitcode is not None:
                break
            done = said_to_be_done(home)
            disk.cut()
            process.kill()
            process.join()
            disk.power_on()
            cuts += 1
            lost += len(done - said_to_be_done(home))
            process = start(bench, home, log)
        process.join(300)
        assert process.exitcode == 0, log.read_text()[-3000:]
        keys, running = ended_runs(home)
        assert running == 0
        repeated += len(keys) - len(set(keys))
        missing, changed = count_differences(expected, rows(home))
        lost, different = lost + missing, different + changed
        shutil.rmtree(home)
    tell(
        f"{cuts} cuts in {studies} studies; "
        f"runs lost {lost}, repeated {repeated}, differing numbers {different}"
    )
    assert (lost, repeated, different) == (0, 0, 0)


def test_a_study_that_is_done_survives_a_cut_at_once(bench, tmp_path, disk):
    home, log = disk.folder / "home", tmp_path / "log"
    before = finish(bench, home, log)
    disk.cut()
    disk.power_on()
    assert count_differences(before, rows(home)) == (0, 0), "the report is there"
    keys, _ = ended_runs(home)
    assert count_differences(before, finish(bench, home, log)) == (0, 0)
    assert len(ended_runs(home)[0]) == len(keys), "nothing is done again"


def test_what_waits_survives_a_cut(disk):
    outbox = Outbox(disk.folder / "outbox")
    for number in range(5):
        outbox.add(Close("run", "FINISHED", number))
    disk.cut()
    disk.power_on()
    assert [op.milliseconds for op in Outbox(disk.folder / "outbox").waiting()] == [0, 1, 2, 3, 4]


def test_what_was_refused_survives_a_cut(disk):
    folder = disk.folder / "outbox"
    Outbox(folder).set_aside(Close("run", "FINISHED", 1), "no such run")
    disk.cut()
    disk.power_on()
    assert "no such run" in (folder / "refused.jsonl").read_text()
