"""The best final run of a study as one model, from pictures to probabilities: registered in MLflow, served.

It is exported (`torch.export`), so that loading it neither needs this package nor unpickles anything.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.analysis.results import by_validation
from bench.core.errors import InputError
from bench.data.augmentation import evaluation_view
from bench.models.factory import TransferModel, build, statistics, with_head
from bench.models.weights import locate
from bench.strategies.registry import STRATEGIES
from bench.study.metrics import METRICS
from bench.study.schema import Study
from bench.study.tasks import TASKS
from bench.study_record.facts import FACTS, StudyFacts
from bench.tracking import model_registry
from bench.tracking.frames import FoundRun, FoundStudy
from bench.tracking.model_registry import Exported
from bench.tracking.store import RunStore

if TYPE_CHECKING:
    from bench.analysis.evidence import Evidence

REGISTERED = "bench-{study}"
TEMPERATURE = "val/temperature"
EXAMPLES = 2  # images in the example that is exported with: one would fix the number of images


class Served(nn.Module):
    """A model with its preprocessing: uint8 images (N, H, W, 3) to probabilities (N, classes).

    Square images of any side are resized to the one that the data set keeps, and shown as in evaluation.

    Args:
        model: in eval mode.
        sides: pixels, that images are kept at, and that the model takes.
        mean: of the input normalisation.
        std: the same.
    """

    def __init__(
        self,
        model: TransferModel,
        sides: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.model, self.sides, self.mean, self.std = model, sides, mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32, shape (N, classes)."""
        kept, side = self.sides
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = functional.interpolate(pixels, (kept, kept), mode="bicubic", antialias=True)
        pixels = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        logits: Tensor = self.model(evaluation_view(pixels, side, self.mean, self.std))
        return logits.float().softmax(1)


def register(store: RunStore, found: FoundStudy, evidence: "Evidence") -> str:
    """Register the best final run of a study as a new version of a model; return its address.

    The best strategy by mean validation metric, and of it the best seed by the same: test chooses nothing.

    Raises:
        InputError: if no run is done, it is no classification, or the source's weights can't be found.
    """
    study = evidence.study
    if not TASKS[study.task].one_class:
        raise InputError(f"models of {study.task} are not registered", study.name)
    run = _best(store, evidence)
    facts = StudyFacts.from_json(next(store.reader.read_all([found], FACTS)))
    model = served(study, facts, run, next(store.reader.read_all([run], "weights.safetensors")))
    side = facts.side
    exported = Exported(
        model,
        np.zeros((EXAMPLES, side, side, 3), dtype=np.uint8),
        {
            "classes": list(facts.classes),
            "side": side,
            "study": study.name,
            "run_key": run.key,
            "temperature": run.metrics.get(TEMPERATURE),
        },
    )
    note = describe(study, facts, run, model)
    return model_registry.register(store, run, exported, REGISTERED.format(study=study.name), note)


def describe(study: Study, facts: StudyFacts, run: FoundRun, model: Served) -> str:
    """Return what the registry shows as a model's description."""
    strategy = STRATEGIES[run.tags["strategy"]]
    hinge = strategy.plan(len(model.model.stages), run.params).phases[-1].solver == "hinge"
    calibrated = (
        f" A temperature of {run.metrics[TEMPERATURE]:.3g} calibrates them, fitted on validation: raise each "
        "to the power of its inverse, then divide them by their sum."
        if TEMPERATURE in run.metrics
        else ""
    )
    return (
        f"The best final run of {study.name}: `{strategy.name}`, seed {run.tags['seed']}, chosen by "
        f"validation. Takes square RGB images, uint8 (N, H, W, 3), and gives the probabilities of "
        f"{', '.join(facts.classes[:20])}{', ...' if len(facts.classes) > 20 else ''}."
        f"{' They are the softmax of the scores of a support vector machine: not calibrated.' * hinge}"
        f"{calibrated}"
    )


def served(study: Study, facts: StudyFacts, run: FoundRun, weights: bytes) -> Served:
    """Return a run's model with its preprocessing, in eval mode.

    Args:
        study: as it was run.
        facts: recorded with it.
        run: a final run.
        weights: its `weights.safetensors`; the tensors that it lacks are the source's.

    Raises:
        InputError: if the source's weights are not those that the study was run with, or can't be found.
    """
    from safetensors.torch import load

    strategy = STRATEGIES[run.tags["strategy"]]
    start = strategy.start
    then = facts.provenance["source weights identity"]
    if start == "pretrained" and then != (now := locate(study.source).identity):
        what = f"the source's weights are not those that the study was run with: {then} then, {now} now"
        raise InputError(what, "source.weights", "put those back, or run the study again")
    size = study.target.image_size
    classes = len(facts.classes)
    model = build(study.source, study.head, classes, size, start, 0)
    plan = strategy.plan(len(model.stages), run.params)
    if plan.readout is not None:
        model = with_head(model, study.head, classes, size, 0, readout=plan.readout)
    unknown = model.load_state_dict(load(weights), strict=False).unexpected_keys
    if unknown:
        raise InputError(f"its weights have no place in the model: {unknown[0]}", run.run_id)
    return Served(model.eval(), (facts.side, size), *statistics(study.source)).eval()


def _best(store: RunStore, evidence: "Evidence") -> FoundRun:
    best = next(iter(by_validation(evidence)), None)
    if best is None:
        raise InputError("no final run is done", evidence.study.name, "run `bench run` first")
    runs = evidence.done[evidence.done["strategy"] == best]
    scores = METRICS[evidence.study.metric].sign * runs[f"val_{evidence.study.metric}"]
    key = str(runs["run_key"].iloc[int(scores.argmax())])
    return store.find([key])[key]
