"""The one error that a person can mend: it says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable
from typing import Self


class InputError(Exception):
    """Unusable input. The command line prints it as one line and exits with status 2.

    Args:
        what: what is wrong, as a short sentence without a full stop.
        where: the file, key or option at fault.
        remedy: what to do about it.
    """

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        line = f"{where}: {what}" if where else what
        super().__init__(" ".join((f"{line}; {remedy}" if remedy else line).split()))

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        return type(self), (self.what, self.where, self.remedy)  # one that another process raised stays whole


class NotStoredError(InputError):
    """What was asked for is not in the run store: no mistake where all that there is was asked for."""


class StoreAwayError(InputError):
    """The run store can't be reached now; it may be back later."""


class NotDeliveredError(StoreAwayError):
    """A run is known here by a provisional id, and the store has none for it."""


class RefusedError(InputError):
    """The run store refuses a write for what it is: sent again it would be refused again."""


class RunGoneError(RefusedError):
    """The run that was to be written to is not in the store any more, nor among what was deleted there."""


def closest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that an unknown one resembles most, or None if it resembles none."""
    names = {each.lower(): each for each in sorted(valid)}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None


def nearest(name: str, valid: Iterable[str], most: int = 12) -> str:
    """Return a remedy for an unknown name: the closest valid one, or the list of what is valid."""
    names = sorted(valid)
    if close := closest(name, names):
        return f"did you mean '{close}'?"
    listed = names if len(names) <= most + 1 else names[:most]  # one more takes no more room than to say so
    more = f" and {len(names) - len(listed)} more" if len(listed) < len(names) else ""
    return f"valid: {', '.join(listed)}{more}" if names else "there is none"
