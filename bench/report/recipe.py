"""The recipe: which hyperparameters were chosen, and the best run of what is recommended as plain PyTorch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from bench import __version__
from bench.analysis.evidence import Evidence
from bench.analysis.summary import Summary
from bench.core.runs import Value
from bench.core.text import plain
from bench.models.weights import PACKAGED
from bench.report.recipe_code import Snippet, snippet
from bench.strategies.plan import TransferPlan
from bench.strategies.registry import STRATEGIES, label_of, tuned_strategy
from bench.study.metrics import METRICS
from bench.study.schema import Study
from bench.study.tasks import TASKS
from bench.system.csv_tables import to_csv

SCORED = ("accuracy", "balanced_accuracy")  # that the snippet computes; else it goes by accuracy
LEAST = 0.02  # of the tolerance: other views and another order move the score by as much


@dataclass(frozen=True)
class Recipe:
    """How the best run was made.

    Args:
        strategy: that is recommended; else the best by validation.
        seed: of its best run by validation.
        headers, rows: the hyperparameters of all strategies.
        yaml: all settings of that run, to copy.
        code: that repeats it; empty where plain code can't.
        why_not: why there is no code; empty where there is.
        split: the images of that run by name, class and part, as CSV; empty where there is no code.
    """

    strategy: str
    seed: int
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    yaml: str
    code: str
    why_not: str
    split: str

    @property
    def files(self) -> dict[str, str]:
        """The files of the report that hold it."""
        code = {"recipe.py": self.code, "split.csv": self.split} if self.code else {}
        return {"recipe.yaml": self.yaml} | code


def recipe(evidence: Evidence, summary: Summary) -> Recipe | None:
    """Return the recipe of a study; None for a smoke test, and where no run is done."""
    strategy = summary.recommendation.strategy if summary.recommendation else summary.best
    if strategy is None or strategy not in STRATEGIES:
        return None
    study, best = evidence.study, _best_run(evidence, strategy)
    seed, params = int(best["seed"]), _params(best)
    why_not = _why_not(evidence, strategy, params)
    split = evidence.split[_trained_on(evidence, seed)] if not why_not else evidence.split
    code = "" if why_not else snippet(_snippet(evidence, strategy, best, split))
    headers, rows = _table(evidence, summary)
    return Recipe(
        strategy,
        seed,
        headers,
        rows,
        yaml=_as_yaml(study, strategy, seed, params),
        code=code,
        why_not=why_not,
        split=to_csv(split[["image", "class", "part"]]) if code else "",
    )


def _best_run(evidence: Evidence, strategy: str) -> "pd.Series[Any]":
    own = evidence.done[evidence.done["strategy"] == strategy]
    scores = METRICS[evidence.study.metric].sign * own[f"val_{evidence.study.metric}"].astype(float)
    return own.iloc[int(scores.to_numpy().argmax())]


def _params(run: "pd.Series[Any]") -> dict[str, Value]:
    """Return the hyperparameters of a run, as far as it has them."""
    known = run.filter(like="param_").dropna()
    return {str(name).removeprefix("param_"): _value(value) for name, value in known.items()}


def _value(value: Any) -> Value:
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() and abs(value) >= 1 else float(value)


def _table(evidence: Evidence, summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return headers and a row for each hyperparameter of each strategy that has a result."""
    headers = ["Strategy", "Hyperparameter", "Best run", "All seeds", "Default", "Range tried"]
    tuned, rows = evidence.study.tuning.trials > 1, []
    done = set(evidence.done["strategy"])
    for name in (result.strategy for result in summary.ranked if result.strategy in done):
        if name not in STRATEGIES:
            continue
        best, own = _best_run(evidence, name), evidence.done[evidence.done["strategy"] == name]
        for key, tried in tuned_strategy(name, evidence.study).search_space.items():
            column = f"param_{key}"
            if column not in own or pd.isna(best[column]):
                continue
            low, high = (_short(end) for end in (own[column].min(), own[column].max()))
            spread = low if low == high else f"{low} to {high}"
            limits = f"{_short(tried.low)} to {_short(tried.high)}" if tuned else "default only"
            rows.append([name, label_of(key), _short(best[column]), spread, _short(tried.default), limits])
    return headers, rows


def _short(value: Any) -> str:
    return value if isinstance(value, str) else plain(float(f"{float(value):.2g}"))


def _as_yaml(study: Study, strategy: str, seed: int, params: Mapping[str, Value]) -> str:
    """Return all settings of a run."""
    target = study.target.model_dump(mode="json")
    settings = {
        "made_by": f"bench {__version__}",
        "study": study.name,
        "strategy": strategy,
        "seed": seed,
        "hyperparameters": dict(params),
        "source": {"model": study.source.model, "weights": study.source.weights},
        "image_size": target["image_size"],
        "augmentation": target["augmentation"],
        "head": study.head.model_dump(mode="json", exclude_none=True),
        "training": study.training.model_dump(mode="json", exclude_none=True),
    }
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _why_not(evidence: Evidence, strategy: str, params: Mapping[str, Value]) -> str:
    """Return why some lines of plain code can't repeat a run; empty where they can."""
    study, plan = evidence.study, _plan(evidence, strategy, params)
    if not TASKS[study.task].one_class or study.task != "classification":
        return f"it is written for one class an image, not for {study.task}"
    if evidence.split.empty or not evidence.parts or plan is None:
        return "its split is not in the run store, where running the study again would put it"
    if evidence.deep:
        return "its images have more than 8 bits, which are scaled by what is white in them"
    if not study.source.model.startswith("timm/"):
        return f"it is written for models of timm, not for {study.source.model}"
    if study.head.kind != "linear":
        return f"it is written for a linear head, not for {study.head.kind}"
    return _beyond_plain_code(plan)


def _beyond_plain_code(plan: TransferPlan) -> str:
    """Return what of a strategy takes more than some lines; empty where nothing does."""
    phase = plan.phases[0]
    found = {
        "it trains in several phases": len(plan.phases) > 1,
        "its head is solved and not trained": phase.is_solved,
        "it adds an adapter to the model": plan.adapter is not None,
        "its head reads an earlier stage": plan.readout is not None,
        "it is held near its start": bool(plan.l2_sp),
        f"it trains only the {plan.parameters} parameters": plan.parameters != "all",
    }
    return next((reason for reason, holds in found.items() if holds), "")


def _plan(evidence: Evidence, strategy: str, params: Mapping[str, Value]) -> TransferPlan | None:
    stages = len(evidence.parts)
    return STRATEGIES[strategy].plan(stages, params) if stages else None


def _trained_on(evidence: Evidence, seed: int) -> "pd.Series[bool]":
    """Return which images of the split a seed trains on, validates on or is tested on."""
    split = evidence.split
    mine = split["seeds"].map(lambda seeds: str(seed) in str(seeds).split())
    return (split["part"] != "train") | mine


def _snippet(evidence: Evidence, strategy: str, run: "pd.Series[Any]", split: pd.DataFrame) -> Snippet:
    study, params = evidence.study, _params(run)
    plan = _plan(evidence, strategy, params)
    assert plan is not None
    curve = evidence.curves
    curve = curve[(curve["strategy"] == strategy) & (curve["seed"] == run["seed"])].sort_values("step")
    metric = study.metric if study.metric in SCORED else "accuracy"
    score = float(run[f"val_{metric}"])
    images = int((split["part"] == "val").sum())
    likely = (score * images + 1) / (images + 2)  # of few images, all right by chance
    return Snippet(
        study=study,
        strategy=strategy,
        seed=int(run["seed"]),
        start=plan.start,
        rates=_rates(plan.phases[0].multipliers, evidence.parts),
        learning_rate=float(params["learning_rate"]),
        weight_decay=float(params["weight_decay"]),
        class_weights=float(params.get("class_weights", _fixed_power(study))),
        evaluations=[int(step) for step in curve["step"]],
        falls_after=_falls_after(curve),
        kept_side=evidence.side,
        fit=evidence.fit,
        normalisation=_normalisation(study),
        metric=metric,
        score=score,
        tolerance=max(LEAST, 2 * math.sqrt(2 * likely * (1 - likely) / images)),
    )


def _fixed_power(study: Study) -> float:
    """Return the power of the class weights that a study fixes; 0: all images count alike."""
    power = study.training.class_weights
    return float(power) if isinstance(power, int | float) else 0.0


def _rates(multipliers: Sequence[float], parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the multiplier of the learning rate for what names begin with; 0: frozen."""
    *stages, head = multipliers
    if len(set(stages)) == 1:
        return {"backbone": stages[0], "head": head}
    rates = {
        f"backbone.{part}": rate for rate, own in zip(stages, parts.values(), strict=True) for part in own
    }
    return rates | {"head": head}


def _falls_after(curve: pd.DataFrame) -> int:
    """Return the step of the last evaluation at the peak of the rate, after which it falls."""
    rates = curve["learning_rate"].astype(float)
    return int(curve.loc[rates >= (1 - 1e-6) * rates.max(), "step"].max())


def _normalisation(study: Study) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return mean and standard deviation of the input; None: as timm says."""
    if study.source.mean and study.source.std:
        return study.source.mean, study.source.std
    package = PACKAGED.get(study.source.model) if study.source.weights == "packaged" else None
    return (package.mean, package.std) if package else None
