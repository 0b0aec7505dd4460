"""A Ray cluster of several nodes on this machine, each with processes and a BENCH_HOME of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.support.tracking_contract import free_port

SMALL = ("--object-store-memory", "80000000", "--memory", "4000000000")
OPTIONS = (*SMALL, "--disable-usage-stats", "--block")


class Nodes:
    """A head, and nodes beside it; each is a group of processes that can be killed.

    Args:
        folder: for the nodes' homes and logs.
        cpus: that each is said to have.
    """

    def __init__(self, folder, cpus=1):
        self.folder, self.cpus, self.port, self.client_port = folder, cpus, free_port(), free_port()
        self.short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets' paths must be short
        self.groups = {}

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, name, **environment):
        """Start a node; `head` is the first one."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        if name == "head":
            where = ["--head", "--port", str(self.port), "--ray-client-server-port", str(self.client_port)]
            where += ["--temp-dir", self.short, "--include-dashboard", "false"]
        else:
            where = ["--address", self.address]
        ray = [sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()", "start"]
        settings = {
            **os.environ,
            "BENCH_HOME": str(home),
            "BENCH_CHECKPOINT_SECONDS": "0.2",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            **environment,
        }
        with (home / "ray.log").open("ab") as log:
            self.groups[name] = subprocess.Popen(
                [*ray, *where, "--node-ip-address", "127.0.0.1", "--num-cpus", str(self.cpus), *OPTIONS],
                env=settings, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def wait(self, count, seconds=90):
        """Wait until so many nodes are alive."""
        until = time.monotonic() + seconds
        while (alive := self._alive()) != count:
            logs = "\n".join(path.read_text()[-1000:] for path in self.folder.glob("*/ray.log"))
            assert time.monotonic() < until, f"{alive} nodes instead of {count}\n{logs}"
            time.sleep(0.5)

    def _alive(self):
        """Ask in a process of its own: Ray ends the process that asked if a head goes."""
        code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50); "
        code += "print(sum(node['Alive'] for node in ray.nodes()))"
        command = [sys.executable, "-P", "-c", code, self.address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.split() else 0

    def processes(self, name):
        """The numbers of a node's processes, workers included, which have groups of their own."""
        import psutil

        try:
            first = psutil.Process(self.groups[name].pid)
            return [first.pid, *(child.pid for child in first.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def workers(self, name):
        """The numbers of the processes of a node that do jobs."""
        import psutil

        found = []
        for pid in self.processes(name):
            try:
                if "_do" in psutil.Process(pid).name() or "_do" in " ".join(psutil.Process(pid).cmdline()):
                    found.append(pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, name):
        """Kill a node with all its processes, at once."""
        for pid in self.processes(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.groups.pop(name).wait()

    def stop(self):
        """Kill what is left."""
        for name in list(self.groups):
            self.kill(name)
        shutil.rmtree(self.short, ignore_errors=True)


@contextmanager
def running_nodes(folder: Path, *names, cpus=1):
    """Run a head and further nodes."""
    nodes = Nodes(folder, cpus)
    try:
        nodes.start("head")
        nodes.wait(1)
        for name in names:
            nodes.start(name)
        nodes.wait(1 + len(names))
        yield nodes
    finally:
        nodes.stop()
