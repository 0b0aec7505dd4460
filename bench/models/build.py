"""Build the model of a run: backbone with its starting weights, cut into stages, and a new head."""

import copy
import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.models.heads import HEADS
from bench.models.initialise import he_initialise
from bench.models.libraries import Statistics, split_name
from bench.models.prefix import Prefix, Suffix, is_resumable
from bench.models.stages import Stage, cut, positions
from bench.models.weights import PACKAGED, load_file, locate
from bench.study import Head, Source

TRACED_SIDE = 64  # pixels; networks halve the resolution five times
Start = Literal["he", "pretrained"]


class TransferModel(nn.Module):
    """A backbone cut into stages, and a head: images (B, 3, H, W) to logits (B, classes).

    Args:
        exit_at: the module whose output the head takes; None for the backbone's pooled features.
        width: how many features (channels) the head takes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stages: tuple[Stage, ...],
        head: nn.Module,
        exit_at: str | None,
        width: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.stages = stages
        self.head = head
        self.exit_at = exit_at
        self.width = width

    def features(self, images: Tensor) -> Tensor:
        """Return what the head takes: (B, F) or a feature map."""
        run = Prefix(self.backbone, self.exit_at) if self.exit_at else self.backbone
        result: Tensor = run(images)
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def prefix(self, stages: int) -> nn.Module:
        """Return the module from images to the output of the first `stages` stages."""
        if stages == len(self.stages):
            return _Features(self)
        return Prefix(self.backbone, self.stages[stages - 1].modules[-1])

    def suffix(self, stages: int, example: Tensor) -> nn.Module | None:
        """Return the module from the prefix's output to logits; None if the model can't be resumed there."""
        if stages == len(self.stages):
            return self.head
        leading = self.stages[:stages]
        if not is_resumable(self.backbone, leading, example, self.exit_at):
            return None
        return nn.Sequential(Suffix(self.backbone, leading, example, self.exit_at), self.head)

    def set_training(self, multipliers: Sequence[float]) -> None:
        """Put trained stages into training mode, frozen ones into eval mode: their running means stay."""
        self.train()
        for stage, multiplier in zip(self.stages, multipliers, strict=False):
            for name in stage.modules:
                self.backbone.get_submodule(name).train(bool(multiplier))
        self.head.train(bool(multipliers[-1]))


class _Features(nn.Module):
    """The whole backbone as a prefix."""

    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


def build(
    source: Source, head: Head, classes: int, image_size: int, start: Start, seed: int
) -> TransferModel:
    """Build a model in eval mode, with its weights' start and a head seeded by `seed`.

    The head is drawn before anything else, so that it starts alike for every strategy of a seed.

    Raises:
        InputError: for an unknown model, weights that don't fit or can't be downloaded, or an image side or
            head that the model can't take.
    """
    backbone, stages, features, last_map = _template(source, image_size, pretrained=start == "pretrained")
    kind = HEADS[head.kind]
    if not kind.pooled and last_map is None:
        what = f"{source.model} has no feature map that the head '{head.kind}' could pool"
        raise InputError(what, "head.kind", "use linear")
    exit_at, features = (None, features) if kind.pooled or last_map is None else last_map
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new_head = kind.build(features, classes, head)
        if start == "he":
            backbone = _fresh(source, image_size)
            he_initialise(backbone)
        else:
            backbone = copy.deepcopy(backbone)
    model = TransferModel(backbone, stages, new_head, exit_at, features)
    return model.to(memory_format=torch.channels_last).eval()


def with_head(model: TransferModel, head: Head, classes: int, seed: int) -> TransferModel:
    """Return a model with the same backbone, not a copy of it, and a head of its own, drawn as in `build`.

    For runs that never train the backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = HEADS[head.kind].build(model.width, classes, head)
    own = own.to(next(model.parameters()).device)
    return TransferModel(model.backbone, model.stages, own, model.exit_at, model.width).eval()


def statistics(source: Source) -> Statistics:
    """Return mean and standard deviation of the input normalisation that the weights were trained with."""
    if source.mean and source.std:
        return source.mean, source.std
    if source.weights == "packaged" and source.model in PACKAGED:
        package = PACKAGED[source.model]
        return package.mean, package.std
    library, name = split_name(source.model)
    return library.statistics(name)


@functools.lru_cache(maxsize=4)
def _template(
    source: Source, image_size: int, pretrained: bool
) -> tuple[nn.Module, tuple[Stage, ...], int, tuple[str, int] | None]:
    """Return backbone, stages, number of pooled features, and the last feature map."""
    try:
        backbone = _pretrained(source, image_size) if pretrained else _fresh(source, image_size)
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(2, 3, image_size, image_size))
        example = _tracing_example(backbone, image_size)
        stages = cut(backbone, example)
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{source.model} can't take images of {image_size} pixels ({reason})", "target.image_size"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError(f"{source.model} gives no pooled features", "source.model", "choose another model")
    return backbone, stages, features.shape[1], _last_map(backbone, stages, example)


def _tracing_example(backbone: nn.Module, image_size: int) -> Tensor:
    """Return images large enough for every stage to have its own resolution, if the model takes them."""
    large = torch.zeros(2, 3, max(image_size, TRACED_SIDE), max(image_size, TRACED_SIDE))
    try:
        with torch.no_grad():
            backbone(large)
    except (RuntimeError, AssertionError, ValueError):  # made for one size
        return torch.zeros(2, 3, image_size, image_size)
    return large


def _last_map(backbone: nn.Module, stages: tuple[Stage, ...], example: Tensor) -> tuple[str, int] | None:
    """Return the last module that puts out a map (several positions), and its number of channels."""
    for name in reversed(stages[-1].modules):
        with torch.no_grad():
            output = Prefix(backbone, name)(example)
        if not isinstance(output, Tensor) or output.ndim not in {3, 4} or positions(output) == 1:
            continue
        return name, output[0].numel() // positions(output)
    return None


def _fresh(source: Source, image_size: int) -> nn.Module:
    library, name = split_name(source.model)
    model = library.create(name, image_size, False)
    library.strip(model)
    return model


def _pretrained(source: Source, image_size: int) -> nn.Module:
    library, name = split_name(source.model)
    origin = locate(source)
    if origin.path is None:
        model = _download(source, image_size)
    else:
        model = library.create(name, image_size, False)
        load_file(model, origin.path, in_order=source.weights == "packaged")
    library.strip(model)
    return model


def _download(source: Source, image_size: int) -> nn.Module:
    library, name = split_name(source.model)
    try:
        return library.create(name, image_size, True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"the default weights of {source.model} can't be downloaded ({type(error).__name__}: {reason})",
            "source.weights",
            "check the network, or name a local .safetensors file",
        ) from error
