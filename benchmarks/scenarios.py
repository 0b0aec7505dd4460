"""Measure whether the packaged scenarios are experiments: frozen features beside what sees only colour.

    python -m benchmarks.scenarios         some minutes on two cores; only classifiers are fitted

For each study of classification on packaged data, with its own sizes, metric and final seeds: a linear probe
and nearest neighbours on frozen features, beside what can be told from colours alone, or from how common the
classes are. What a group holds tells nothing where data have groups: no test image is of one that is trained
on.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.data.sources.base import SOURCES
from bench.experiment.plan import Plan, plan
from bench.study.baselines import BASELINES
from bench.study.loading import available, load
from bench.training.baselines import features_problem, fit
from bench.training.linear_probe import frozen_features
from bench.training.problem import TrainingProblem
from bench.training.setup import Compute, TrainingSetup

AHEAD = 0.1  # by which frozen features are to be ahead of the best that sees no more than colours
STRENGTHS = np.logspace(-4, -1, 4)  # C of the probe on standardised features, chosen on val
MOST_ITERATIONS = 200
SEEDS = 3
PROBE, FROZEN = "linear probe", ("linear probe", "nearest_neighbours")


def main() -> None:
    """Print a line for each scenario."""
    for name, path in available().items():
        study = load(str(path), ["strategies=[linear_probe]"])
        if study.target.data in SOURCES and "/" not in study.target.data:
            scores = measure(plan(study))
            ahead = max(scores[who] for who in FROZEN) - max(
                value for who, value in scores.items() if who not in FROZEN
            )
            told = ", ".join(f"{who} {value:.3f}" for who, value in scores.items())
            met = "" if ahead >= AHEAD else f", less than {AHEAD}"
            print(
                f"{name}, {study.metric}: {told}; frozen features are ahead by {ahead:.3f}{met}", flush=True
            )


def measure(laid_out: Plan) -> dict[str, float]:
    """Return the test metric of the probe and of each baseline, mean over some final seeds."""
    setup = TrainingSetup(laid_out.study, laid_out.dataset, laid_out.origin, Compute("cpu", measures=False))
    found: dict[str, list[float]] = {name: [] for name in (PROBE, *BASELINES)}
    for seed in laid_out.seeds[:SEEDS]:
        parts = laid_out.splits[seed]
        problem = features_problem(setup, parts, seed)
        found[PROBE].append(probe(problem, parts.test))
        for name in BASELINES:
            fitted = fit(name, setup, parts, seed)
            found[name].append(score(problem, fitted.predict(parts.test), parts.test))
    return {name: float(np.mean(values)) for name, values in found.items()}


def score(problem: TrainingProblem, predictions: torch.Tensor, indices: np.ndarray) -> float:
    """Return the study's metric of predictions for images `indices`."""
    return problem.targets.score(predictions, indices, (problem.metric,))[problem.metric]


def probe(problem: TrainingProblem, test: np.ndarray) -> float:
    """Return the test metric of a linear probe whose strength is chosen on val."""
    train, val, held_out = (
        frozen_features(problem, indices).cpu().numpy() for indices in (problem.train, problem.val, test)
    )
    labels, models = problem.labels[problem.train].cpu().numpy(), []
    for strength in STRENGTHS:
        solver = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
        models.append(make_pipeline(StandardScaler(), solver).fit(train, labels))

    def logits(model: Pipeline, features: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(model.predict_log_proba(features).clip(-50)).float()

    best = max(models, key=lambda model: score(problem, logits(model, val), problem.val))
    return score(problem, logits(best, held_out), test)


if __name__ == "__main__":
    main()
