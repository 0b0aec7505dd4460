"""Processor, memory, disk, network and GPU while a study runs, sampled into its run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bench.tracking.connection import Connection

SAMPLE_SECONDS = 10.0  # between two samples of system metrics


@contextmanager
def system_metrics(connection: Connection, run_id: str) -> Iterator[None]:
    """Sample processor, memory, disk, network and GPU into a run every ten seconds, if they can be read.

    Nothing that goes wrong here may touch the study: it is measured, not needed.
    """
    monitor: Any = None
    with suppress(Exception):  # psutil missing, no NVML, the store gone
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        sampler: Any = SystemMetricsMonitor
        monitor = sampler(run_id, SAMPLE_SECONDS, resume_logging=True, tracking_uri=connection.uri)
        monitor.start()
    try:
        yield
    finally:
        with suppress(Exception):
            _stop(monitor)


def _stop(monitor: Any) -> None:
    """Stop sampling and write the last sample, which a study shorter than the interval would lose."""
    if monitor is None:
        return
    monitor.finish()
    monitor.collect_metrics()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()
