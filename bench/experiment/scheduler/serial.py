"""Do jobs in this process, one after the other."""

from collections.abc import Sequence

from bench.experiment.events import OnEvent
from bench.experiment.scheduler.base import Job, OnDone, Work


class SerialScheduler:
    """Does jobs here and now."""

    def run(self, jobs: Sequence[Job], work: Work, on_done: OnDone, on_event: OnEvent) -> None:
        """Do all jobs: see `base.Scheduler`."""
        do, queue = work.open(on_event), list(jobs)
        while queue:
            job = queue.pop(0)
            if do(job):
                on_done(job)
            else:
                queue.append(job)
