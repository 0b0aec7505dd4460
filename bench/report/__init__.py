"""The report on a study, the overview of several, and the preview of augmentation: files that people read."""

from bench.report.pages import write, write_overview
from bench.report.preview import preview
from bench.report.sizes import write_sizes
from bench.report.tables import table

__all__ = ["preview", "table", "write", "write_overview", "write_sizes"]
