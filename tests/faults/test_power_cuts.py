"""The power fails while a study runs: what was said to be done is on the disk, and it can be completed.

A real ext4 in a file is shut down, all that was not written out yet is lost, and it is mounted again.
"""

import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.tracking.operations import Close
from bench.tracking.outbox import Outbox
from tests.faults.test_kills import count_differences, ended_runs

pytestmark = pytest.mark.slow

CUTS = int(os.environ.get("BENCH_POWER_CUTS", "20"))
SHORT = ("--jobs", "1", "--strategy", "full", "--strategy", "linear_probe", "--trials", "2", "--seeds", "2")
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
        made.cut()
        made.power_on()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted and cut off here: {error}")
    yield made
    made.unmount()


def test_power_is_cut_at_any_moment(bench, tmp_path, disk, capsys):
    draw = random.Random("power")
    began = time.monotonic()
    expected = bench.finish(tmp_path / "undisturbed", *SHORT)
    seconds = time.monotonic() - began  # as long as the machine takes: a cut can be at any moment of it
    cuts = studies = lost = different = repeated = 0
    while cuts < CUTS:
        name, log = str(studies), tmp_path / f"log {studies}"
        studies += 1
        while cuts < CUTS:
            process = bench.start(disk.folder / name, *SHORT, log=log)
            process.join(draw.uniform(0.1, 1) * seconds)
            if process.exitcode is not None:
                assert process.exitcode == 0, log.read_text()[-3000:]
                break
            disk.cut()
            process.kill()
            process.join()
            disk.power_on()
            cuts += 1
        found = bench.finish(disk.folder / name, *SHORT)
        keys, running = ended_runs(disk.folder / name)
        assert running == 0
        repeated += len(keys) - len(set(keys))
        missing, changed = count_differences(expected, found)
        lost, different = lost + missing, different + changed
    with capsys.disabled():
        print(f"\n{cuts} cuts in {studies} studies; runs lost {lost}, repeated {repeated}, ", end="")
        print(f"differing numbers {different}")
    assert (lost, repeated, different) == (0, 0, 0)


def test_a_run_that_is_done_survives_a_cut_at_once(bench, tmp_path, disk):
    home = disk.folder / "home"
    before = bench.finish(home, *SHORT, log=tmp_path / "log")
    disk.cut()
    disk.power_on()
    keys, _ = ended_runs(home)
    found = bench.finish(home, *SHORT, log=tmp_path / "log")
    assert count_differences(before, found) == (0, 0)
    assert len(ended_runs(home)[0]) == len(keys), "nothing is done again"


def test_what_waits_survives_a_cut(disk):
    outbox = Outbox(disk.folder / "outbox")
    for number in range(5):
        outbox.add(Close("run", "FINISHED", number))
    disk.cut()
    disk.power_on()
    assert [op.milliseconds for op in Outbox(disk.folder / "outbox").waiting()] == [0, 1, 2, 3, 4]
