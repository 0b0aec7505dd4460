"""Evidence made up for tests: right or wrong drawn from a model with known strategies, seeds and images."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from bench.analysis.comparisons import Comparison
from bench.analysis.evidence import Evidence
from bench.analysis.spread import Spread
from bench.analysis.statistics import shares
from bench.analysis.variance import Crossed, Difference, Sample, Scale
from bench.study.schema import Study

LEVEL = {"scratch": -0.4, "feature_extractor": 1.3, "partial": 1.4, "full": 1.5, "discriminative": 1.5}
SECONDS = {"scratch": 25.0, "feature_extractor": 3.0, "partial": 11.0, "full": 22.0, "discriminative": 22.0}

RUN_PAGES = "http://127.0.0.1:5000/#/experiments/1/runs/"
FEATURES = {"feature_extractor": 2.0, "partial": 1.0}


def crossed_of(correct, *, strata=None, groups=None, overlap=0.0):
    """Return runs whose correctness is given, shape (R, N)."""
    correct = np.asarray(correct, dtype=float)
    images = correct.shape[1]
    sample = Sample(
        np.arange(images) if groups is None else np.asarray(groups),
        np.zeros(images, int) if strata is None else np.asarray(strata),
        overlap,
    )
    return Crossed(*shares(correct, sample), sample, Scale(shares=True))


def comparison(strategy, other, relation="undecided", value=0.0, *, margin=0.02, p_worse=0.5):
    """Return a comparison of which only what is given matters."""
    found = Difference(value, value - 0.05, value + 0.05, 0.2, 0.5, 0.5, 3, Spread(1e-4, 0.0, 1e-4, 3, 50.0))
    told = relation in {"better", "worse"}
    p = {"better": (0.001, 0.9), "worse": (0.9, 0.001), "equivalent": (0.01, 0.01)}.get(
        relation, (p_worse, 0.5)
    )
    return Comparison(
        strategy, other, relation, margin, found, 0.02 if told else 0.2, *p, 0.0, 1, 2, 0.1, 0.2
    )


def make_study(**changes) -> Study:
    values = {
        "name": "small_similar",
        "question": "Is a linear classifier enough?",
        "scenario": {"size": "small", "similarity": "similar"},
        "source": {"model": "timm/tf_efficientnet_lite0"},
        "target": {"data": "photo_textures"},
        "seeds": 3,
    }
    return Study.model_validate(values | changes)


def make_evidence(study=None, *, images=120, epochs=3, failed=(), level=LEVEL, classes=("ant", "bee")):
    """Skill + seed - difficulty of the image + noise > 0 is right. `failed`: (strategy, seed) pairs."""
    study = study or make_study()
    draw = np.random.default_rng(0)
    target = draw.integers(0, len(classes), images)
    difficulty = draw.normal(0, 1, images)
    runs, curves, predictions, trials = [], [], [], []
    for strategy in study.strategies:
        for seed in range(study.seeds):
            trials += [_trial(study, strategy, seed, number) for number in range(study.tuning.trials)]
            skill = level[strategy] + draw.normal(0, 0.1)
            right = skill - difficulty + draw.normal(0, 0.6, images) > 0
            run = _run(study, strategy, seed)
            if (strategy, seed) in failed:
                runs.append(run | {"status": "failed", "error": "loss is NaN at epoch 3"})
                continue
            accuracy = right.mean()
            runs.append(run | _metrics(accuracy, _balanced(right, target)) | {"status": "done"})
            given = np.where(right, target, (target + 1) % len(classes))
            predictions.append(
                _predictions(strategy, seed, np.take(classes, target), np.take(classes, given))
            )
            curves += [_epoch(strategy, seed, e, accuracy * (1 - np.exp(-e))) for e in range(1, epochs + 1)]
    joined = pd.concat(predictions) if predictions else pd.DataFrame()
    frames = (pd.DataFrame(rows) for rows in (runs, trials, curves))
    provenance = {"command": "bench run --study small_similar", "device": "cpu", "test_images": images}
    return Evidence(study, *frames, joined, provenance, run_pages=RUN_PAGES)


def make_stages(evidence, stages=("stem", "stage 1", "stage 2")):
    """Return how far stages moved: the frozen ones of the frozen strategies not at all."""
    done = evidence.done
    rows = [
        (strategy, seed, name, depth, change, 1 - change)
        for strategy, seed in zip(done["strategy"], done["seed"], strict=True)
        for depth, name in enumerate(stages)
        for change in [0.0 if strategy == "feature_extractor" else 0.1 * (depth + 1)]
    ]
    return pd.DataFrame(rows, columns=["strategy", "seed", "stage", "depth", "change", "cka"])


def make_images(evidence, side=8):
    """Return a PNG picture for every test image."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "#3366aa").save(buffer, "PNG")
    return dict.fromkeys(evidence.predictions["image"], buffer.getvalue())


def _balanced(right, target):
    return np.mean([right[target == c].mean() for c in np.unique(target)])


def _run(study, strategy, seed):
    return {
        "study": study.name,
        "strategy": strategy,
        "seed": seed,
        "train_seconds": SECONDS[strategy] + seed,
        "eval_seconds": 0.5,
        "cached_seconds": SECONDS[strategy] + seed + 0.5 - FEATURES.get(strategy, 0.0),
        "feature_seconds": FEATURES.get(strategy, 0.0),
        "mlflow_run_id": f"{strategy}{seed}",
        "trainable_parameters": 1000,
        "run_key": f"{strategy}-{seed}",
        "param_lr": 0.001,
    }


def _metrics(accuracy, balanced):
    return {
        f"{part}_{name}": value
        for part in ("val", "test")
        for name, value in (("accuracy", accuracy), ("balanced_accuracy", balanced), ("loss", 1 - accuracy))
    }


def _trial(study, strategy, seed, number):
    return {
        "study": study.name,
        "strategy": strategy,
        "seed": seed,
        "trial": number,
        "status": "pruned" if number % 3 == 2 else "done",
        "val_accuracy": 0.5,
        "train_seconds": SECONDS[strategy],
        "eval_seconds": 1.0,
        "param_learning_rate": 10.0 ** -(1 + number % 4),
    }


def _epoch(strategy, seed, epoch, value):
    metrics = {
        "val_accuracy": value,
        "val_balanced_accuracy": value,
        "train_loss": 1 - value,
        "val_loss": 1 - value,
    }
    return {"strategy": strategy, "seed": seed, "step": epoch, "learning_rate": 0.001, **metrics}


def _predictions(strategy, seed, target, given):
    names = [f"{number:04d}.png" for number in range(len(target))]
    return pd.DataFrame(
        {"strategy": strategy, "seed": seed, "image": names, "target": target, "prediction": given}
    )
