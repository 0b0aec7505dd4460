"""The limits of control groups, read from files as the kernel writes them."""

import math

import pytest

from bench.experiment.scheduler.capacity import choose_count
from bench.system.cgroups import free_memory, processors
from bench.system.hardware import usable_cpus

GB = 10**9


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def membership(tmp_path):
    return tmp_path / "membership"


def test_the_narrowest_group_counts(tmp_path, membership):
    membership.write_text("0::/outer/inner\n")
    write(tmp_path / "outer", cpu__max="350000 100000", memory__max=6 * GB, memory__current=5 * GB)
    write(tmp_path / "outer" / "inner", cpu__max="max 100000", memory__max="max", memory__current=2 * GB)
    assert processors(tmp_path, membership) == 3.5
    assert free_memory(tmp_path, membership) == 1 * GB


def test_version_1(tmp_path, membership):
    membership.write_text("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n")
    write(tmp_path / "cpu", cpu__cfs_quota_us=150_000, cpu__cfs_period_us=100_000)
    write(tmp_path / "memory", memory__limit_in_bytes=4 * GB, memory__usage_in_bytes=GB)
    assert processors(tmp_path, membership) == 1.5
    assert free_memory(tmp_path, membership) == 3 * GB
    write(tmp_path / "cpu", cpu__cfs_quota_us=-1)
    assert processors(tmp_path, membership) == math.inf


def test_pages_of_files_are_given_back(tmp_path, membership):
    membership.write_text("0::/\n")
    statistics = f"anon 100\ninactive_file {3 * GB}\nactive_file 7"
    write(tmp_path, memory__max=4 * GB, memory__current=4 * GB, memory__stat=statistics)
    assert free_memory(tmp_path, membership) == 3 * GB
    write(tmp_path, memory__current=9 * GB)
    assert free_memory(tmp_path, membership) == 0


def test_without_limits(tmp_path, membership):
    assert processors(tmp_path, membership) == free_memory(tmp_path, membership) == math.inf
    membership.write_text("0::/../elsewhere\n")
    assert processors(tmp_path, membership) == free_memory(tmp_path, membership) == math.inf
    assert usable_cpus() >= 1


def test_threads_and_processes_are_as_many_as_the_limits_allow(tmp_path):
    write(tmp_path, cpu__max="100000 100000", memory__max=40 * GB, memory__current=GB)
    assert usable_cpus(tmp_path) == 1
    assert choose_count(None, "cpu", 5, 32 * 64**2, tmp_path) == 1
    write(tmp_path, cpu__max="20000 100000")
    assert usable_cpus(tmp_path) == 1, "less than one is one"
    write(tmp_path, cpu__max="max 100000", memory__max=3 * GB, memory__current=GB)
    assert choose_count(None, "cpu", 5, 32 * 64**2, tmp_path) == 1, "a process takes more than 1 GB"
