"""A real PostgreSQL in a folder of its own, for tests that need one."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.tracking_contract import free_port


class Postgres:
    """A server that can be stopped and started again. Skips the test where none is installed."""

    def __init__(self):
        pytest.importorskip(
            "psycopg2", reason="the PostgreSQL driver is not installed: pip install psycopg2-binary"
        )
        self.binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
        if self.binaries is None:
            pytest.skip("PostgreSQL is not installed: no /usr/lib/postgresql/*/bin")
        self.user = None
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            self.user = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name == "postgres"), None)
            if self.user is None:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        self.folder, self.port = tempfile.mkdtemp(prefix="bench-pg-"), free_port()
        if self.user:
            shutil.chown(self.folder, self.user)
        self.uri = f"postgresql+psycopg2://bench@127.0.0.1:{self.port}/postgres"

    def start(self):
        if not Path(self.folder, "data").exists():
            self._do("initdb", "-A", "trust", "-U", "bench", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._do("pg_ctl", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self):
        self._do("pg_ctl", "-m", "immediate", "-w", "stop")

    def remove(self):
        self._do("pg_ctl", "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _do(self, program, *arguments, check=True):
        command = [f"{self.binaries}/{program}", "-D", f"{self.folder}/data", *arguments]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=check, user=self.user, cwd=self.folder, stdout=quiet, stderr=quiet)


@contextmanager
def running_postgres():
    """Yield a server that runs; nothing of it is left after."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()
