"""Run a backbone up to the end of its frozen prefix, or from there on, without rewriting its `forward`.

Up to: the forward pass is left as soon as all modules that are asked for have put out their values: the
prefix's last one, and those of the prefix that a decoder reads again (skip connections).
From there on: the prefix's modules are replaced; the last one hands out the stored value, the others NaN of
the right shape, so that whatever the model does between its modules is cheap, and shows if it matters.
Whether that gives what the whole model gives is measured on a batch, never assumed (`is_resumable`): a
network that reads an earlier output again, behind the prefix, is run through.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.stages import Stage

Values = Tensor | tuple[Tensor, ...]  # of one module, or of several in the order asked for


class _Left(Exception):  # noqa: N818 - control flow, not an error
    pass


class _Stub(nn.Module):
    """Stands for a module of the prefix; `value` is what it puts out."""

    value: Tensor | None = None

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        if self.value is not None:
            return self.value
        return inputs.new_full((inputs.shape[0], *self.shape[1:]), float("nan"))


class Prefix(nn.Module):
    """A backbone up to its last tap, from images (B, 3, H, W) to what the taps put out.

    A tap is a module whose output is read. An exported program can't be left early: it runs all of the
    backbone.
    """

    def __init__(self, backbone: nn.Module, *taps: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.taps = taps

    def forward(self, images: Tensor) -> Values:
        """Return what the taps put out for the images: one tensor, or a tuple of them."""
        found: dict[str, Tensor] = {}

        def note(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                found.setdefault(name, output)
                if len(found) == len(self.taps) and not torch.compiler.is_exporting():
                    raise _Left

            return self.backbone.get_submodule(name).register_forward_hook(hook)

        handles = [note(name) for name in self.taps]
        try:
            self.backbone(images)
        except _Left:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if missing := [name for name in self.taps if name not in found]:
            raise RuntimeError(f"the forward pass never reached {', '.join(missing)}")
        values = tuple(found[name] for name in self.taps)
        return values if len(values) > 1 else values[0]


def replica(module: nn.Module) -> nn.Module:
    """Return a copy with the same tensors for another thread: hooks and what a pass leaves are its own."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def prefix_outputs(stages: Sequence[Stage], taps: Sequence[str]) -> tuple[str, ...]:
    """Return the modules whose outputs are all that is needed to go on behind these stages.

    They are the last module, and every tap among the stages: what skip connections carry past the others.
    """
    names = [name for stage in stages for name in stage.modules]
    return (*(name for name in taps if name in names[:-1]), names[-1])


class Suffix(nn.Module):
    """What stands behind the prefix, from what that hands on to the backbone's features.

    The modules behind the prefix are the backbone's own, so training this trains the backbone.

    Args:
        backbone: the whole model.
        stages: the stages of the prefix.
        example: a batch of images, to record the shapes within the prefix.
        taps: the modules whose outputs are wanted; none for the backbone's own output.
    """

    def __init__(
        self, backbone: nn.Module, stages: Sequence[Stage], example: Tensor, taps: Sequence[str] = ()
    ) -> None:
        super().__init__()
        names = [name for stage in stages for name in stage.modules]
        shapes = _output_shapes(backbone, names, example)
        self.resumed = _shallow_copy(backbone, names)
        self.image_shape = example.shape[1:]
        for name in names:
            parent, _, leaf = name.rpartition(".")
            self.resumed.get_submodule(parent)._modules[leaf] = _Stub(shapes[name])  # noqa: SLF001
        self.taps = taps
        self.known = prefix_outputs(stages, taps)
        self.later = [name for name in taps if name not in self.known]
        self.run = Prefix(self.resumed, *self.later) if self.later else self.resumed
        # in a list, so that it is not registered a second time
        self._entry: list[Any] = [self.resumed.get_submodule(names[-1])]

    def forward(self, value: Values) -> Values:
        """Return the backbone's features, given the outputs of the prefix."""
        given = (value,) if isinstance(value, Tensor) else value
        stub = self._entry[0]
        images = torch.zeros((), device=given[-1].device).expand(given[-1].shape[0], *self.image_shape)
        stub.value = given[-1]
        try:
            result: Values = self.run(images)
        finally:
            stub.value = None
        if len(self.taps) <= 1:
            return result
        later = (result,) if isinstance(result, Tensor) else result
        values = dict(zip((*self.known, *self.later), (*given, *later), strict=True))
        return tuple(values[name] for name in self.taps)


class Pack(nn.Module):
    """Several tensors of a batch as one: (B, ...) each to (B, 1, N), so that they can be stored."""

    def forward(self, values: Sequence[Tensor]) -> Tensor:
        """Return them flat and joined."""
        return torch.cat([value.flatten(1) for value in values], 1)[:, None]


class Unpack(nn.Module):
    """The inverse of `Pack`.

    Args:
        shapes: of each tensor, without the batch.
    """

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors, maps with their channels last in memory."""
        parts = torch.split(packed[:, 0], [shape.numel() for shape in self.shapes], 1)
        values = [torch.unflatten(part, 1, shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return tuple(v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in values)


def _output_shapes(backbone: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, torch.Size]:
    shapes: dict[str, torch.Size] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            shapes[name] = output.shape

        return backbone.get_submodule(name).register_forward_hook(hook)

    handles = [record(name) for name in names]
    try:
        with torch.no_grad():
            backbone(example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _shallow_copy(backbone: nn.Module, replaced: Sequence[str]) -> nn.Module:
    """Copy the containers on the way to the replaced modules; everything else is shared, not copied."""
    root = copy.copy(backbone)
    root._modules = dict(backbone._modules)  # noqa: SLF001
    copied = {""}
    for name in replaced:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if path in copied:
                continue
            copied.add(path)
            parent = root.get_submodule(".".join(parts[: depth - 1]))
            child = copy.copy(parent._modules[parts[depth - 1]])  # noqa: SLF001
            assert child is not None
            child._modules = dict(child._modules)  # noqa: SLF001
            parent._modules[parts[depth - 1]] = child  # noqa: SLF001
    return root


@torch.no_grad()
def is_resumable(
    backbone: nn.Module, stages: Sequence[Stage], example: Tensor, taps: Sequence[str] = ()
) -> bool:
    """Return whether prefix then suffix gives what the whole backbone gives, in eval mode."""
    training = backbone.training
    backbone.eval()
    try:
        values = _tuple(Prefix(backbone, *prefix_outputs(stages, taps))(example))
        if any(not isinstance(v, Tensor) or v.shape[0] != example.shape[0] for v in values):
            return False
        kept = tuple(value.clone() for value in values)
        resumed = _tuple(Suffix(backbone, stages, example, taps)(kept))
        whole = _tuple(Prefix(backbone, *taps)(example) if taps else backbone(example))
        pairs = zip(resumed, whole, strict=True)
        return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)
    except Exception:  # noqa: BLE001 - any failure means: run through the prefix instead
        return False
    finally:
        backbone.train(training)


def _tuple(values: Values) -> tuple[Tensor, ...]:
    return (values,) if isinstance(values, Tensor) else values
