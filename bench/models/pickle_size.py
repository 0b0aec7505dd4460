"""How much memory a file of `torch.save` asks for, found out before a byte of it is allocated.

A file of a few hundred bytes may name a storage of gigabytes, which the format of before torch 1.6 allocates
at once, or hold deflated zeros, which `torch.load` unpacks. So the pickles are read once with nothing behind
their names: no class is imported, no function is called, and only the sizes of the storages are noted.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Self

_LEGACY_HEADERS = 3  # pickles before the object: magic number, protocol, system
_STORAGE = 5  # the parts of a storage's name that are read: "storage", type, key, device, elements


def check_size(path: Path) -> None:
    """Raise ValueError if loading a file would take more memory than the file holds.

    Raises:
        ValueError: it would; pickle.UnpicklingError and others: it is no such file.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            asked = sum(entry.file_size for entry in archive.infolist())
    else:
        with path.open("rb") as file:
            asked = _elements(file)
    if asked > size:
        raise ValueError(f"{size:,} bytes that would become {asked:,} or more")


def _elements(file: BinaryIO) -> int:
    """Return how many elements, of a byte or more each, the storages of a file of the old format have."""
    for _ in range(_LEGACY_HEADERS):
        _Sizes(file).load()
    reader = _Sizes(file)
    reader.load()
    return sum(reader.elements.values())


class _Nothing:
    """Stands for every class and function that a pickle names; whatever is done to it does nothing."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "_Nothing":
        return self

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None:
        """Pickles add to lists by this."""

    def extend(self, _: object) -> None:
        """Pickles add to lists by this."""

    def add(self, _: object) -> None:
        """Pickles add to sets by this."""


class _Sizes(pickle.Unpickler):
    """Reads a pickle without what it names, and notes its storages."""

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        super().__init__(file)
        self.elements: dict[str, int] = {}

    def find_class(self, _module: str, _name: str, /) -> Any:
        return _Nothing

    def persistent_load(self, pid: Any, /) -> _Nothing:
        if isinstance(pid, tuple) and len(pid) >= _STORAGE and isinstance(pid[4], int):
            key = str(pid[2])
            self.elements[key] = max(self.elements.get(key, 0), pid[4])
        return _Nothing()
