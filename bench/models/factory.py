"""Build the model of a run: backbone with its starting weights, cut into stages, and a new head."""

import copy
import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.models.adapters import add_adapter
from bench.models.fully_convolutional import fcn_backbone
from bench.models.heads.classification import HEADS, Takes
from bench.models.initialization import he_initialise
from bench.models.libraries import Library, Statistics, split_name
from bench.models.partial_forward import (
    Pack,
    Prefix,
    Suffix,
    Unpack,
    Values,
    is_resumable,
    prefix_outputs,
)
from bench.models.stages import (
    Stage,
    cut,
    drop_behind,
    map_taps,
    pooled,
    positions,
)
from bench.models.weights import (
    PACKAGED,
    load_file,
    locate,
    tensors_only,
)
from bench.strategies.plan import Adapter
from bench.study.schema import Head, Source

TRACED_SIDE = 64  # pixels; networks halve the resolution five times
Start = Literal["he", "pretrained"]


class TransferModel(nn.Module):
    """A backbone cut into stages, and a head: images (B, 3, S, S) to logits (B, classes, ...).

    Args:
        taps: the modules whose features the head takes; none for the backbone's pooled features.
        widths: how many features, or channels of each tap, the head takes.
        pools: whether the one tap's map is pooled before the head takes it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stages: tuple[Stage, ...],
        head: nn.Module,
        taps: tuple[str, ...],
        widths: tuple[int, ...],
        *,
        pools: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.stages = stages
        self.head = head
        self.taps = taps
        self.widths = widths
        self.pools = pools

    def features(self, images: Tensor) -> Values:
        """Return what the head takes: (B, F), a feature map, or several."""
        run = Prefix(self.backbone, *self.taps) if self.taps else self.backbone
        result: Values = run(images)
        return pooled(result) if self.pools and isinstance(result, Tensor) else result

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def prefix_outputs(self, stages: int) -> tuple[str, ...]:
        """Return the modules whose outputs `prefix(stages)` gives; none for the pooled features."""
        if stages == len(self.stages):
            return () if self.pools else self.taps
        return prefix_outputs(self.stages[:stages], self.taps)

    def prefix(self, stages: int) -> nn.Module:
        """Return the module from images to what the first `stages` stages hand on, as one tensor."""
        outputs = self.prefix_outputs(stages)
        run = Prefix(self.backbone, *outputs) if outputs else _Features(self)
        return nn.Sequential(run, Pack()) if len(outputs) > 1 else run

    def suffix(self, stages: int, example: Tensor) -> nn.Module | None:
        """Return the module from the prefix's output to logits; None if the model can't be resumed there."""
        leading, outputs = self.stages[:stages], self.prefix_outputs(stages)
        behind = [self.head]
        if stages < len(self.stages):
            if not is_resumable(self.backbone, leading, example, self.taps):
                return None
            behind.insert(0, Suffix(self.backbone, leading, example, self.taps))
        if len(outputs) > 1:
            with torch.no_grad():
                behind.insert(
                    0, Unpack([value.shape[1:] for value in Prefix(self.backbone, *outputs)(example)])
                )
        return nn.Sequential(*behind) if len(behind) > 1 else self.head

    def set_training(self, modes: Sequence[float]) -> None:
        """Put stages and the head into training mode or, at 0, into eval mode: their running means stay."""
        self.train()
        for stage, mode in zip(self.stages, modes, strict=False):
            for name in stage.modules:
                self.backbone.get_submodule(name).train(bool(mode))
        self.head.train(bool(modes[-1]))


class _Features(nn.Module):
    """The whole backbone as a prefix."""

    def __init__(self, model: TransferModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Values:
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
    kind = HEADS[head.kind]
    backbone, stages, taps, widths = _template(
        source, image_size, kind.takes, pretrained=start == "pretrained"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new_head = kind.build(widths, classes, head, image_size)
        if start == "he":
            backbone = _fresh(source, image_size, kind.takes)
            he_initialise(backbone)
        else:
            backbone = copy.deepcopy(backbone)
    model = TransferModel(backbone, stages, new_head, taps, widths)
    return model.to(memory_format=torch.channels_last).eval()


def with_head(
    model: TransferModel, head: Head, classes: int, image_size: int, seed: int, *, readout: int | None = None
) -> TransferModel:
    """Return a model with the same backbone, not a copy of it, and a head of its own, drawn as in `build`.

    For runs that never train the backbone, and for heads that read an earlier stage: `readout` says behind
    how many leading stages, pooled; None is where the head of `model` reads.
    """
    taps, widths, device = model.taps, model.widths, next(model.parameters()).device
    if readout is not None:
        taps = (model.stages[readout - 1].modules[-1],)
        widths = (_pooled_width(model.backbone, taps[0], image_size, device),)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = HEADS[head.kind].build(widths, classes, head, image_size)
    own = own.to(device).to(memory_format=torch.channels_last)
    pools = model.pools or readout is not None
    return TransferModel(model.backbone, model.stages, own, taps, widths, pools=pools).eval()


def with_adapter(model: TransferModel, adapter: Adapter, seed: int) -> TransferModel:
    """Return the model with an adapter, drawn by `seed`, in its backbone, which is changed in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.stages = add_adapter(model.backbone, model.stages, adapter)
    return model.to(memory_format=torch.channels_last).eval()


@torch.no_grad()
def _pooled_width(backbone: nn.Module, tap: str, image_size: int, device: torch.device) -> int:
    output = Prefix(backbone, tap)(torch.zeros(2, 3, image_size, image_size, device=device))
    assert isinstance(output, Tensor)
    return pooled(output).shape[1]


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
    source: Source, image_size: int, takes: Takes, pretrained: bool
) -> tuple[nn.Module, tuple[Stage, ...], tuple[str, ...], tuple[int, ...]]:
    """Return backbone, stages, and the taps with the widths of what the head takes there."""
    try:
        make = _pretrained if pretrained else _fresh
        backbone = make(source, image_size, takes).eval()
        example = _tracing_example(backbone, image_size)
        taps, widths = _taps(source, backbone, image_size, takes, example)
        return backbone, cut(backbone, example), taps, widths
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{source.model} can't take images of {image_size} pixels ({reason})", "target.image_size"
        ) from error


@torch.no_grad()
def _taps(
    source: Source, backbone: nn.Module, image_size: int, takes: Takes, example: Tensor
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the taps that a head reads, and their numbers of channels; none and that of pooled features."""
    if takes in {"pooled", "map"}:
        features = backbone(torch.zeros(2, 3, image_size, image_size))
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise InputError(
                f"{source.model} gives no pooled features", "source.model", "choose another model"
            )
        if takes == "pooled":
            return (), (features.shape[1],)
        last_map = _last_map(backbone, cut(backbone, example), example)
        if last_map is None:
            what = f"{source.model} has no feature map that a head could pool"
            raise InputError(what, "head.kind", "use linear")
        return (last_map[0],), (last_map[1],)
    taps = map_taps(backbone, example)
    maps = Prefix(backbone, *taps)(example)
    if isinstance(maps, Tensor) or any(value.ndim != 4 for value in maps):
        what = f"{source.model} has no feature maps of several resolutions"
        raise InputError(what, "source.model", "choose a convolutional network")
    if takes == "convolutional":
        taps, maps = taps[-1:], maps[-1:]
    return taps, tuple(value[0].numel() // positions(value) for value in maps)


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


def _fresh(source: Source, image_size: int, takes: Takes) -> nn.Module:
    library, name = split_name(source.model)
    return _without_classifier(library, library.create(name, image_size, False), image_size, takes)


def _pretrained(source: Source, image_size: int, takes: Takes) -> nn.Module:
    library, name = split_name(source.model)
    origin = locate(source)
    if origin.path is None:
        model = _download(source, image_size)
    else:
        model = library.create(name, image_size, False)
        load_file(model, origin.path, in_order=source.weights == "packaged")
    return _without_classifier(library, model, image_size, takes)


def _without_classifier(library: Library, model: nn.Module, image_size: int, takes: Takes) -> nn.Module:
    """Return what of a model stands before the head, in place."""
    if takes == "convolutional":
        return fcn_backbone(model)
    library.strip(model)
    if takes == "maps":
        example = _tracing_example(model, image_size)
        drop_behind(model, map_taps(model, example)[-1], example)
    return model


def _download(source: Source, image_size: int) -> nn.Module:
    library, name = split_name(source.model)
    try:
        with tensors_only():
            return library.create(name, image_size, True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"the default weights of {source.model} can't be downloaded ({type(error).__name__}: {reason})",
            "source.weights",
            "check the network, or name a local .safetensors file",
        ) from error
