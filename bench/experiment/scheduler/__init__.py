"""Schedulers: where the jobs of a study are done. Each keeps the same protocol, `base.Scheduler`."""
