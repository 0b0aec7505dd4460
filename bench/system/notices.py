"""What is worth a line once: that something goes another way than was meant, however often it does."""

import logging

ONCE = "once"  # the attribute of a log record that a person is to see once, whichever processes give it
_shown: set[str] = set()


def warn_once(log: logging.Logger, line: str) -> None:
    """Log a warning, the first time in this process that this line is given."""
    if line not in _shown:
        _shown.add(line)
        log.warning("%s", line, extra={ONCE: True})


def forget() -> None:
    """Let every line be new again."""
    _shown.clear()
