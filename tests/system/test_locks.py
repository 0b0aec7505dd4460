"""Locks between processes: each kind has its own files, and one folder has one lock by any name."""

import fcntl
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.system import locks


def test_a_study_called_like_a_lock_of_another_shares_none_with_it():
    files = {locks.lock_file(kind, name) for kind in ("studies", "opening") for name in ("a", "a.opening")}
    assert len(files) == 4


def test_a_folder_has_one_lock_by_whatever_name(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with locks.folder_locked(tmp_path / "link" / "reports"):
        held = set(locks.lock_file("reports", "x").parent.iterdir())
    with locks.folder_locked(Path("reports")):
        assert set(locks.lock_file("reports", "x").parent.iterdir()) == held
    assert len(held) == 1


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
