"""How a study is run, as the command line says it."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """How a study is run; nothing here moves a number but through the device and its threads."""

    device: str = "auto"
    tracking_uri: str | None = None
    fresh: bool = False  # forget what was done before
    jobs: int | None = None  # processes; None: as many as the device has room for
    threads: int | None = None  # of each process; None: all processors
    deterministic: bool = False  # the same bits each time on a GPU too
    cluster: str | None = None  # the address of a Ray cluster; None: this machine
    budget: str = "default"  # the name of the preset, which `bench report` looks for
    sizes: bool = False  # one of several numbers of training labels, which `bench report` passes over
    began: float = field(default_factory=time.time)  # seconds since 1970: an earlier failure is tried again
