"""Every test starts from an empty `BENCH_HOME`, offline, and with no tracking server in its environment."""

import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from bench.system import notices

# Read by libraries when they are imported, so set before any test module is.
os.environ.update(
    HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true", MPLBACKEND="Agg", OMP_WAIT_POLICY="PASSIVE"
)
os.environ.pop("MLFLOW_TRACKING_URI", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # as many threads as there are cores for each process of the tests
    os.environ["OMP_NUM_THREADS"] = "1"

# A shell that starts us in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "bench", deadline=None
)  # how long an example takes says something of the machine only
settings.load_profile("bench")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory):
    """One cache for all tests: decoding the packaged data anew for each would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(
            "BENCH_HOME", str(tmp_path_factory.mktemp("home"))
        )  # for fixtures of a module or session
        yield


@pytest.fixture(autouse=True)
def _home_of_this_test(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    notices.forget()


@pytest.fixture(autouse=True)
def _threads_of_this_test():
    """A study sets torch's threads for its process, and with them the last bits of what comes after it."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture
def tell(record_property):
    """Puts a line of what a test measured at the end of all output, whichever process it ran in."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter):
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == "told" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {line}")


@pytest.fixture(scope="session")
def new_store(tmp_path_factory):
    """Puts an empty run store into a file, and returns its address: making its tables takes seconds."""
    from bench.tracking.client import make_database

    made = tmp_path_factory.mktemp("made") / "mlflow.db"
    make_database(made)

    def put(file):
        shutil.copy(made, file)
        return f"sqlite:///{file}"

    return put


@pytest.fixture
def error_rate(monkeypatch):
    """A metric of which lower values are better: whatever accuracy chooses, it chooses too."""
    from bench.study.metrics import METRICS, Metric, Ratio

    statistic = Ratio(lambda n: (n.truth - n.intersection, n.truth), together=True)
    record = Metric(
        "error_rate", "error rate", "share of images that are wrong", ("classification",), statistic, "lower"
    )
    monkeypatch.setitem(METRICS._records, record.name, record)
    return record


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images that stands beside the clone where this project is developed."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no development data in {folder}")
    return folder


@pytest.fixture
def free_port():
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def browser():
    """Chromium, which fetches nothing of its own."""
    reason = "playwright is not installed: pip install playwright"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    flags = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=flags.split())
        yield started
        started.close()
