"""Folders are replaced whole or not at all."""

import pytest

from bench.system.files import replacing_folder


def test_a_folder_takes_the_place_of_another_when_it_is_whole(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with replacing_folder(folder) as temporary:
        (temporary / "new").touch()
        assert (folder / "old").exists()
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(FileNotFoundError), replacing_folder(folder) as temporary:
        (temporary / "missing" / "new").touch()
    assert [file.name for file in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]
