"""Cut any classification backbone into stages, and run what stands behind a frozen prefix without it.

A stage is a run of consecutive modules whose outputs have the same resolution (He et al. 2016, table 1); the
leading modules before the first block are the stem. Networks of one resolution throughout (ViT, mixers)
are cut into a stem and four parts with equally many blocks. Nothing here depends on a model's name.
A dense head reads the backbone's maps at its taps: the last module of each resolution.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

EVEN_PARTS = 4  # for networks of one resolution
SAME_RESOLUTION = 0.6  # a fall below this share of the positions begins a stage
STEM_RESOLUTIONS = 2  # a stem halves the resolution once or twice


@dataclass(frozen=True)
class Stage:
    """A stage: its modules in order of execution, and the names of all parameters and buffers in it."""

    name: str
    modules: tuple[str, ...]
    tensors: frozenset[str]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that everything in it begins with: its modules, and tensors that are in none of them."""
        loose = (n for n in sorted(self.tensors) if not any(n.startswith(f"{m}.") for m in self.modules))
        return (*self.modules, *loose)


@dataclass(frozen=True)
class _Unit:
    """A module that is not cut further, with what it put out in the trace."""

    name: str
    positions: int
    leaf: bool
    weights: bool


def cut(backbone: nn.Module, example: Tensor) -> tuple[Stage, ...]:
    """Cut a backbone into stages, input to output.

    Args:
        backbone: a model without classifier, from images to features.
        example: an input batch, shape (B, 3, H, W).
    """
    groups = _merge_weightless(_group(_trace(backbone, example)))
    names = ["stem", *(f"stage{number}" for number in range(1, len(groups)))]
    modules = [tuple(unit.name for unit in group) for group in groups]
    return tuple(
        Stage(name, group, tensors)
        for name, group, tensors in zip(names, modules, _assign(backbone, modules), strict=True)
    )


def map_taps(backbone: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Return the modules that put out the map of each resolution, finest first.

    The last block of a resolution, or its last layer if it has no blocks (VGG, a stem): what `features_only`
    in timm gives, and in VGG the layers before each pooling.
    """
    units = [
        unit
        for unit in _trace(backbone, example)
        if unit.positions > 1 and not isinstance(backbone.get_submodule(unit.name), nn.Identity)
    ]
    groups = [group for group in _by_resolution(units) if any(unit.weights for unit in group)]
    return tuple(([unit for unit in group if not unit.leaf] or group)[-1].name for group in groups)


def drop_behind(backbone: nn.Module, last: str, example: Tensor) -> None:
    """Replace all that is run behind a module by identity, in place: no decoder reads it."""
    names = [unit.name for unit in _trace(backbone, example)]
    for name in names[names.index(last) + 1 :]:
        parent, _, leaf = name.rpartition(".")
        setattr(backbone.get_submodule(parent), leaf, nn.Identity())


def _trace(backbone: nn.Module, example: Tensor) -> list[_Unit]:
    """Run the backbone once and list its units in order of execution."""
    units: dict[str, _Unit] = {}

    def record(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name not in units and (tensor := _first_tensor(output)) is not None:
                leaf = not any(any(True for _ in child.parameters()) for child in module.children())
                weights = any(True for _ in module.parameters())
                units[name] = _Unit(name, positions(tensor), leaf, weights)

        return module.register_forward_hook(hook)

    handles = [record(name, module) for name, module in _uncut(backbone)]
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(example)
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    return list(units.values())


def _uncut(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are not cut further: plain containers are opened, and what holds nearly all."""
    total = sum(p.numel() for p in backbone.parameters())

    def is_open(module: nn.Module) -> bool:
        if isinstance(module, nn.ModuleList) or type(module).forward is nn.Sequential.forward:
            return True
        return sum(p.numel() for p in module.parameters()) > 0.9 * total and any(
            True for _ in module.children()
        )

    def walk(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            if is_open(child):
                yield from walk(child, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", child

    return walk(backbone, "")


def _first_tensor(output: Any) -> Tensor | None:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def positions(output: Tensor) -> int:
    """Return how many positions a feature map has: (B, C, H, W), (B, H, W, C), (B, N, C) or (B, C)."""
    shape = output.shape
    if output.ndim == 4:
        return shape[1] * shape[2] if has_channels_last(output) else shape[2] * shape[3]
    return shape[1] if output.ndim == 3 else 1


def has_channels_last(output: Tensor) -> bool:
    """Say whether a map is (B, H, W, C) rather than (B, C, H, W), as far as its shape tells."""
    return output.shape[1] == output.shape[2] != output.shape[3]


def pooled(output: Tensor) -> Tensor:
    """Return the mean over positions of (B, C, H, W), (B, H, W, C), (B, N, C) or (B, C), shape (B, C)."""
    if output.ndim == 4:
        return output.mean((1, 2) if has_channels_last(output) else (2, 3))
    return output.mean(1) if output.ndim == 3 else output


def _group(units: list[_Unit]) -> list[list[_Unit]]:
    """Group units into stages: the stem, then a stage for every fall of the resolution."""
    leading = _stem_length(units)
    groups = [units[:leading]] if leading else []
    body = _by_resolution(units[leading:])
    if len(body) < EVEN_PARTS - 1:
        at = max(range(len(body)), key=lambda i: sum(unit.weights for unit in body[i]))
        body[at : at + 1] = _split_evenly(body[at])
    return groups + body


def _stem_length(units: list[_Unit]) -> int:
    """Return how many units stand before the first block; none if they are the network itself (VGG)."""
    leading = next((i for i, unit in enumerate(units) if not unit.leaf), len(units))
    return max(leading, 1) if len(_by_resolution(units[:leading])) <= STEM_RESOLUTIONS else 0


def _by_resolution(units: list[_Unit]) -> list[list[_Unit]]:
    groups: list[list[_Unit]] = []
    level = 0
    for unit in units:
        if not groups or 1 < unit.positions < SAME_RESOLUTION * level:
            groups.append([])
            level = unit.positions
        groups[-1].append(unit)
    return groups


def _split_evenly(group: list[_Unit]) -> list[list[_Unit]]:
    """Split a stage into parts with equally many blocks; what trails the last block goes with it."""
    blocks = [i for i, unit in enumerate(group) if unit.weights and not unit.leaf] or list(range(len(group)))
    parts = min(EVEN_PARTS, len(blocks))
    starts = [0, *(blocks[len(blocks) * part // parts] for part in range(1, parts)), len(group)]
    return [group[low:high] for low, high in pairwise(starts)]


def _merge_weightless(groups: list[list[_Unit]]) -> list[list[_Unit]]:
    """Join a group without weights to the next one, or, at the end, to the one before."""
    merged: list[list[_Unit]] = []
    pending: list[_Unit] = []
    for group in groups:
        pending = pending + group
        if any(unit.weights for unit in group):
            merged.append(pending)
            pending = []
    if pending and merged:
        merged[-1] = merged[-1] + pending
    return merged


def _assign(backbone: nn.Module, groups: list[tuple[str, ...]]) -> list[frozenset[str]]:
    """Give every parameter and buffer to one stage.

    What belongs to no unit is the containers' own (class token, position embedding: the stem's) or was not
    executed in the trace (the last stage's).
    """
    stage_of = {name: stage for stage, group in enumerate(groups) for name in group}
    idle = [name for name, _ in _uncut(backbone) if name not in stage_of]
    stage_of |= dict.fromkeys(idle, len(groups) - 1)
    tensors: list[set[str]] = [set() for _ in groups]
    for name in backbone.state_dict():
        parts = name.split(".")
        owner = next((o for n in range(1, len(parts)) if (o := ".".join(parts[:n])) in stage_of), None)
        tensors[stage_of[owner] if owner else 0].add(name)
    return [frozenset(names) for names in tensors]
