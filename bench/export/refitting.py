"""A run's training once more, on the images too that it was chosen by, or tested on."""

import numpy as np

from bench.analysis.training_length import best_steps
from bench.core.errors import InputError
from bench.core.runs import Arm, Purpose, RunSpec
from bench.export.model_facts import Scores, Trained
from bench.export.served_model import ServedModel, build_served
from bench.export.stored_model import StoredModel, check_weights
from bench.models.weights import locate
from bench.training.problem import DivergedError
from bench.training.refit import refit
from bench.training.setup import Compute, TrainingSetup


def refitted(stored: StoredModel, trained_on: Trained, device: str) -> ServedModel:
    """Return the model of a run, trained once more on other images; no score of its own is known.

    Hyperparameters, seed and temperature are the run's, the steps the mean of those that the checkpoints of
    its strategy's seeds had taken.

    Raises:
        InputError: if the data or weights are not those of the study, or training diverges.
    """
    study, run = stored.study, stored.run
    check_weights(study, stored.recorded, run.tags["strategy"])
    dataset = stored.dataset()
    parts = stored.split(dataset)
    indices = np.arange(len(dataset.labels))
    if trained_on == "train and val":
        indices = np.concatenate([parts.train, parts.val])
    chosen = best_steps(stored.evidence)[run.tags["strategy"]]
    steps = round(sum(chosen) / len(chosen))
    setup = TrainingSetup(study, dataset, locate(study.source), Compute(device, measures=False))
    spec = RunSpec(
        Arm(study.name, run.tags["strategy"], {}), run.params, int(run.tags["seed"]), Purpose.FINAL
    )
    try:
        trained = refit(setup, spec, indices, steps)
    except DivergedError as error:
        raise InputError(
            str(error), run.tags["strategy"], "export the run itself, without a refit"
        ) from error
    scores = Scores(metric=study.metric)
    facts = stored.facts.model_copy(
        update={"trained_on": trained_on, "images": len(indices), "steps": steps, "scores": scores}
    )
    weights = {name: tensor.cpu() for name, tensor in trained.best.items()}
    return build_served(facts, weights, whole=False)
