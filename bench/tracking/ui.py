"""The MLflow UI on the right store, in two processes instead of MLflow's fifteen."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.core.errors import InputError
from bench.system import locations
from bench.system.ports import address, check_port
from bench.system.signals import sigterm_interrupts
from bench.tracking import read_only, relocation, store_uri
from bench.tracking.connection import newest_runs

log = logging.getLogger(__name__)

START_SECONDS, STOP_SECONDS = 120.0, 10.0


def ui_command(uri: str | None, host: str, port: int, copied: str = "") -> tuple[list[str], dict[str, str]]:
    """Return the command that serves the UI, and its environment.

    Args:
        uri: of the store, see `store_uri.resolve_uri`; a database.
        host: address to bind. MLflow itself answers only to this machine's names and private networks.
        port: a free port.
        copied: of a copy that is served instead; the artifacts are those of the store.

    Raises:
        InputError: if the store is a server (it has a UI of its own) or the port can't be bound.
    """
    uri = store_uri.resolve_uri(uri)
    if store_uri.is_server(uri):
        raise InputError(
            "the store is a server and shows its own UI", store_uri.shown(uri), "open it in a browser"
        )
    check_port(host, port)
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--workers", "1"]
    command += ["--artifacts-destination", str(store_uri.artifact_folder(uri))]
    command += ["--host", host, "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    store = {
        "MLFLOW_BACKEND_STORE_URI": copied or uri
    }  # whose password all users would see among the arguments
    return command, {**os.environ, "PYTHONSAFEPATH": "1", **quiet, **store}


def run_ui(uri: str | None, host: str, port: int) -> None:
    """Serve the UI until Ctrl-C or SIGTERM; say where it is as soon as it answers.

    Raises:
        InputError: see `ui_command`, or if the server ends by itself; its output is in `BENCH_HOME`/ui.log.
    """
    uri = store_uri.resolve_uri(uri)
    if store_uri.is_server(uri):
        print(f"The MLflow UI is at {store_uri.shown(uri)}")
        return
    with _served(uri) as served:
        command, environment = ui_command(uri, host, port, served)
        _serve(command, environment, address(host, port), newest_runs(served))


@contextmanager
def _served(uri: str) -> Iterator[str]:
    """Yield the address of what is served: the store, made ready; or a copy of one that can only be read."""
    file = store_uri.sqlite_file(uri)
    if file and file.exists() and not read_only.can_be_written(file):
        with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
            copied = Path(folder) / "mlflow.db"
            read_only.copy(uri, copied)
            relocation.heal(uri, copied)
            log.warning("bench: %s can only be read; this is a copy of what it holds now", file)
            yield f"sqlite:///{copied}"
        return
    with store_uri.one_at_a_time(uri):
        store_uri.require_database(uri)
        relocation.heal(uri)
    yield uri


def _serve(command: list[str], environment: dict[str, str], url: str, runs: str) -> None:
    """Run a server until Ctrl-C or SIGTERM; say where it is as soon as it answers."""
    said = locations.home() / "ui.log"
    # Its web server imports from the folder that it is started in, so that is an empty one.
    empty = tempfile.TemporaryDirectory(prefix="bench-ui-")
    with said.open("wb") as output, empty as folder, sigterm_interrupts():
        # A session of its own: Ctrl-C reaches only this process, which then stops all of them in order.
        server = subprocess.Popen(  # noqa: S603
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_ready(server, url, said)
            print(f"The MLflow UI is at {'/'.join(filter(None, (url, runs)))} (Ctrl-C stops it)", flush=True)
            server.wait()
            raise InputError("the MLflow UI ended by itself", str(said), _last_line(said))
        except KeyboardInterrupt:
            pass
        finally:
            _stop(server)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, said: Path) -> None:
    here = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is not for this machine
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError):
            direct.open(f"{here}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise InputError("the MLflow UI did not start", str(said), _last_line(said))


def _last_line(said: Path) -> str:
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return store_uri.shown(lines[-1][:200]) if lines else "its output is empty"


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
            return
