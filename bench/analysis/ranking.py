"""Several studies together: ranks of strategies, with data sets as the sample (Demsar 2006, JMLR 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.comparisons import ALPHA
from bench.analysis.summary import Summary
from bench.study.metrics import METRICS


@dataclass(frozen=True, eq=False)
class Ranks:
    """Mean ranks over data sets; seeds, and studies on the same data, are no data sets and averaged first.

    Args:
        scores: mean test metric, negative where lower values are better: a row for each data set (named by
            its studies), a column for each strategy that all studies have.
        studies: how many there are.
        mean: strategy to mean rank; 1 is best.
        friedman_p: that all strategies are alike.
        difference: the critical difference of mean ranks at 0.05 (Nemenyi).
        p: Nemenyi's p-values, strategies by strategies; all 1 where Friedman's test does not reject: only
            then does Nemenyi's follow it (Demsar 2006, section 3.2.2).
    """

    scores: pd.DataFrame
    studies: int
    mean: Mapping[str, float]
    friedman_p: float
    difference: float
    p: pd.DataFrame

    @property
    def differ(self) -> bool:
        """Whether Friedman's test says that not all strategies are alike."""
        return self.friedman_p < ALPHA

    @property
    def apart(self) -> list[tuple[str, str]]:
        """The pairs that differ, the better first."""
        order = sorted(self.mean, key=lambda name: self.mean[name])
        p = self.p.loc[order, order].to_numpy(dtype=float)
        return [(order[i], order[j]) for i, j in zip(*np.nonzero(np.triu(p < ALPHA, 1)), strict=True)]


def rank(summaries: Sequence[Summary]) -> Ranks | None:
    """Rank the strategies that have a result in every study.

    Returns:
        None for fewer than two data sets or three strategies: Friedman's test needs them.
    """
    scores = _by_data_set(summaries)
    sets, strategies = scores.shape
    if sets < 2 or strategies < 3:
        return None
    from scikit_posthocs import posthoc_nemenyi_friedman

    mean = scores.rank(axis="columns", ascending=False).mean()
    alike = bool(scores.eq(scores.iloc[:, 0], axis="index").all(axis=None))
    friedman = 1.0 if alike else float(stats.friedmanchisquare(*scores.to_numpy().T).pvalue)
    shape = (strategies, strategies)
    p = posthoc_nemenyi_friedman(scores.to_numpy()) if friedman < ALPHA else np.ones(shape)
    return Ranks(
        scores=scores,
        studies=len(summaries),
        mean={str(name): float(value) for name, value in mean.items()},
        friedman_p=friedman,
        difference=critical_difference(strategies, sets),
        p=pd.DataFrame(np.asarray(p), scores.columns, scores.columns),
    )


def _by_data_set(summaries: Sequence[Summary]) -> pd.DataFrame:
    """Return the mean scores of each data set, higher is better; a study of unknown data is its own."""
    scores = pd.DataFrame(
        [{r.strategy: r.test_mean for r in summary.results} for summary in summaries],
        index=[summary.study for summary in summaries],
        dtype=float,
    ).dropna(axis="columns")
    scores = scores.mul([METRICS[summary.metric].sign for summary in summaries], axis="index")
    data = [summary.data_digest or f"of {place}" for place, summary in enumerate(summaries)]
    names = scores.index.to_series().groupby(data, sort=False).agg(", ".join)
    return scores.groupby(data, sort=False).mean().set_axis(names.tolist())


def critical_difference(strategies: int, data_sets: int) -> float:
    """Return the difference of mean ranks that Nemenyi's test tells apart (Demsar 2006, section 3.2.2)."""
    q = stats.studentized_range.ppf(1 - ALPHA, strategies, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(strategies * (strategies + 1) / (6 * data_sets)))
