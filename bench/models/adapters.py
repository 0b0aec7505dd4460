"""Adapters: parameters added beside a backbone's frozen ones, and the plain weights that both amount to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.core.registry import Registry
from bench.models.stages import Stage
from bench.strategies.plan import Adapter

PEFT_NAME = "default"  # of the one adapter that a layer has
BASE, ADDED = ".base_layer", ".lora_"  # parts of the names that peft gives to tensors


@dataclass(frozen=True)
class AdapterKind:
    """A way to add parameters.

    Args:
        add: changes a backbone in place; what it adds is drawn from torch's generator.
        plain: from a backbone with its adapters to its tensors as they would be without: the sum of both.
        is_added: whether a tensor of that name is the adapter's.
    """

    name: str
    summary: str
    add: Callable[[nn.Module, Adapter], None]
    plain: Callable[[nn.Module], dict[str, Tensor]]
    is_added: Callable[[str], bool]


ADAPTERS: Registry[AdapterKind] = Registry("adapter")


def add_adapter(backbone: nn.Module, stages: tuple[Stage, ...], adapter: Adapter) -> tuple[Stage, ...]:
    """Add an adapter to a backbone in place; return its stages with the tensors that it has now.

    Raises:
        ValueError: if no layer can take it.
    """
    owner = {name: number for number, stage in enumerate(stages) for name in stage.tensors}
    of_module = {name.rpartition(".")[0]: number for name, number in owner.items()}
    ADAPTERS[adapter.kind].add(backbone, adapter)
    tensors: list[set[str]] = [set() for _ in stages]
    for name in backbone.state_dict():
        layer = name.partition(BASE)[0].partition(ADDED)[0] if name not in owner else ""
        tensors[owner[name] if name in owner else of_module[layer]].add(name)
    return tuple(replace(s, tensors=frozenset(names)) for s, names in zip(stages, tensors, strict=True))


def _layers_for_low_rank(backbone: nn.Module) -> list[str]:
    """Return convolutions and linear layers to which a low-rank change can be added, and merged again.

    Not those of a subclass, which do something else with their weights (standardise them, pad otherwise, or
    hand them to fused attention), and no grouped convolution, whose change is not low-rank.
    """
    return [
        name
        for name, module in backbone.named_modules()
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
    ]


def _add_low_rank(backbone: nn.Module, adapter: Adapter) -> None:
    """Add LoRA (Hu et al. 2022): the change begins at zero, as the second factor does."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = _layers_for_low_rank(backbone)
    if not layers:
        raise ValueError("the model has no layer to which LoRA could be added")
    config = LoraConfig(r=adapter.rank, lora_alpha=round(adapter.scale * adapter.rank), target_modules=layers)
    inject_adapter_in_model(config, backbone, adapter_name=PEFT_NAME)


@torch.no_grad()
def _plain_low_rank(backbone: nn.Module) -> dict[str, Tensor]:
    changes = {
        f"{name}.weight": module.get_delta_weight(PEFT_NAME)
        for name, module in backbone.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    plain = {name.replace(BASE, ""): t for name, t in backbone.state_dict().items() if ADDED not in name}
    return {name: tensor + changes[name] if name in changes else tensor for name, tensor in plain.items()}


ADAPTERS.add(
    AdapterKind(
        "lora",
        "LoRA on convolutions and linear layers, by peft",
        _add_low_rank,
        _plain_low_rank,
        lambda name: ADDED in name,
    )
)


def plain_tensors(backbone: nn.Module, adapter: Adapter | None) -> Mapping[str, Tensor]:
    """Return a backbone's tensors by the names of its architecture, with what an adapter changes."""
    return ADAPTERS[adapter.kind].plain(backbone) if adapter else backbone.state_dict()
