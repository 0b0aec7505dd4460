"""Locks between processes: each kind has its own files, and one folder has one lock by any name."""

import fcntl
import threading
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.system import locks


def test_a_study_called_like_a_lock_of_another_shares_none_with_it():
    files = {locks.lock_file(kind, name) for kind in ("studies", "opening") for name in ("a", "a.opening")}
    assert len(files) == 4


def test_a_folder_has_one_lock_by_whatever_name_and_with_whatever_home(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    waiting = threading.Event()

    def wait_for_it():
        waiting.set()
        with locks.folder_locked(Path("study")):
            entered.append(real / "study")

    entered = []
    monkeypatch.chdir(real)
    with locks.folder_locked(tmp_path / "link" / "study"):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / "another"))
        other = threading.Thread(target=wait_for_it)
        other.start()
        waiting.wait()
        other.join(0.2)
        assert not entered
    other.join()
    assert entered
    assert not list(real.iterdir()), "no lock is left among the reports"


@pytest.mark.parametrize("lock", [locks.locked, locks.claimed], ids=["locked", "claimed"])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, lock):
    def refuse(_handle, _kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError) as caught, lock(tmp_path / "a.lock"):
        pass
    assert str(caught.value).startswith(
        f"{tmp_path}: files can't be locked there (no locks available); set BENCH_HOME"
    )
