"""A trained model with its preprocessing: from squares of pixels to probabilities."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.core.errors import InputError
from bench.data.augmentation import evaluation_view
from bench.export.model_facts import ModelFacts
from bench.models.factory import TransferModel, build, with_head
from bench.training.targets.base import probabilities_of


class ServedModel(nn.Module):
    """A model in eval mode: images as the data set keeps them to calibrated probabilities.

    Args:
        model: the network.
        facts: what images it takes, and what its logits mean.
    """

    def __init__(self, model: TransferModel, facts: ModelFacts) -> None:
        super().__init__()
        self.model, self.facts = model, facts
        self._probabilities = probabilities_of(facts.task)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities for images, uint8 (N, side, side, 3): float32 (N, classes, ...)."""
        facts = self.facts
        logits: Tensor = self.model(evaluation_view(images, facts.image_size, facts.mean, facts.std))
        return self._probabilities(logits.float() / facts.temperature)


class ServedAtAnySize(nn.Module):
    """The same for square images of any side, which are first resized to the one that the data set keeps."""

    def __init__(self, served: ServedModel) -> None:
        super().__init__()
        self.served = served
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities for images, uint8 (N, S, S, 3): float32 (N, classes, ...)."""
        side = self.served.facts.side
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
        pixels = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        probabilities: Tensor = self.served(pixels)
        return probabilities


def build_served(facts: ModelFacts, tensors: Mapping[str, Tensor], *, whole: bool) -> ServedModel:
    """Build a model and put trained weights into it.

    Args:
        facts: of the model.
        tensors: its weights by name.
        whole: whether these are all that it has; else those that are lacking are the source's.

    Raises:
        InputError: if the weights don't fit, or the source's can't be found.
    """
    size, classes = facts.image_size, len(facts.classes)
    model = build(facts.source, facts.head, classes, size, "he" if whole else "pretrained", 0)
    if facts.readout is not None:
        model = with_head(model, facts.head, classes, size, 0, readout=facts.readout)
    try:
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:  # of another shape
        raise InputError(_unfit(str(error).splitlines()[-1].strip()), facts.run) from error
    if wrong := [*unexpected, *(missing if whole else [])]:
        raise InputError(_unfit(wrong[0]), facts.run)
    return ServedModel(model, facts)


def _unfit(which: str) -> str:
    return f"the weights are not those of the model that is described ({which})"
