"""A registry is a dict of frozen records: a duplicate raises, an unknown name answers with the nearest."""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from bench.core.errors import InputError, nearest


class Named(Protocol):
    """Anything with a name and a one-line summary."""

    @property
    def name(self) -> str:
        """What people type."""

    @property
    def summary(self) -> str:
        """One line."""


R = TypeVar("R", bound=Named)


class Registry(Mapping[str, R]):
    """Records by name, in order of registration.

    Args:
        kind: the singular noun used in messages ("strategy", "data set").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._records: dict[str, R] = {}

    def add(self, record: R) -> R:
        """Register a record and return it; raise ValueError if the name is taken."""
        if record.name in self._records:
            raise ValueError(f"{self.kind} '{record.name}' is registered twice")
        self._records[record.name] = record
        return record

    def get_or_raise(self, name: str, where: str = "") -> R:
        """Return the record, or raise InputError naming the nearest valid name."""
        if name not in self:
            raise InputError(f"unknown {self.kind} '{name}'", where, nearest(name, self))
        return self[name]

    def __getitem__(self, name: str) -> R:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
