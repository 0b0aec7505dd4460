"""What a study's stored runs say: estimates, paired comparisons, the rule of thumb, a verdict."""

from bench.analysis.advice import Ruling
from bench.analysis.compare import Comparison
from bench.analysis.evidence import Evidence
from bench.analysis.summary import Result, Summary, summarise

__all__ = ["Comparison", "Evidence", "Result", "Ruling", "Summary", "summarise"]
