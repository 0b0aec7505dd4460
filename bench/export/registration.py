"""The model of a study in MLflow's model registry: one version for each run, smoke tests apart.

It is exported (`torch.export`), so that loading it neither needs this package nor unpickles anything.
"""

import numpy as np
import torch

from bench.export.model_facts import ModelFacts
from bench.export.served_model import ServedAtAnySize
from bench.export.stored_model import StoredModel
from bench.tracking import model_registry
from bench.tracking.model_registry import Exported

REGISTERED = "bench-{study}"
EXAMPLES = 2  # images in the example that is exported with: one would fix the number of images
MOST_NAMED = 20  # classes, in a description


def registered_name(facts: ModelFacts) -> str:
    """Return the name of a run's model: a smoke test's is another, so that it is never the latest."""
    smoke = "-smoke" * (facts.budget == "smoke")
    return f"{REGISTERED.format(study=facts.study)}{smoke}"


def register(stored: StoredModel) -> str:
    """Register a run as a new version of a model, unless it is registered; return its address.

    Raises:
        InputError: if the source's weights can't be found.
    """
    facts = stored.facts
    name = registered_name(facts)
    if known := model_registry.version_of(stored.store, stored.run.run_id, name):
        return known
    model = ServedAtAnySize(stored.load())
    example = np.zeros((EXAMPLES, facts.side, facts.side, 3), dtype=np.uint8)
    with torch.inference_mode():
        answers = tuple(model(torch.from_numpy(example)).shape)
    metadata = {
        "classes": list(facts.classes),
        "side": facts.side,
        "study": facts.study,
        "run_key": stored.run.key,
        "temperature": facts.temperature,
    }
    exported = Exported(model, example, answers, metadata)
    return model_registry.register(stored.store, stored.run, exported, name, describe(facts))


def describe(facts: ModelFacts) -> str:
    """Return what the registry shows as a model's description."""
    listed = ", ".join(facts.classes[:MOST_NAMED]) + ", ..." * (len(facts.classes) > MOST_NAMED)
    calibrated = (
        f" They are calibrated by a temperature of {facts.temperature:.3g}, fitted on validation."
        if facts.temperature != 1
        else ""
    )
    return (
        f"A final run of {facts.in_words}, the best seed by validation. Takes square RGB images, uint8 "
        f"(N, H, W, 3), and gives the probabilities of {listed}.{calibrated}"
    )
