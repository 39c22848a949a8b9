"""Adds a change to a layer's result instead of its weights, for weights that are never patched, such as quantised ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from comfy.patcher_extension import PatcherInjection
from comfy.weight_adapter.base import WeightAdapterBase, scale_by
from comfy.weight_adapter.lora import LoRAAdapter

ADDITIVE = ("lora", "loha", "lokr")
LAYERS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)


class WeightPaths(Protocol):
    """Finds the parameters of weights."""

    def paths(self, key: str) -> tuple[str, ...]: ...


class Patcher(Protocol):
    """A ``ModelPatcher`` whose layers are found by weight name."""

    @property
    def weights(self) -> WeightPaths: ...

    def get_model_object(self, name: str) -> Any: ...


def layer_of(patcher: Patcher, key: str) -> Any:
    """The layer whose weight is *key*, as *patcher* sees it. Raises ``AttributeError`` when there is none."""
    return patcher.get_model_object(patcher.weights.paths(key)[0].rpartition(".")[0])


def can_bypass(patch: Any) -> bool:
    """Whether *patch* only adds to the weight, so that its effect can be added to the layer's result."""
    return (
        isinstance(patch, WeightAdapterBase) and patch.name in ADDITIVE and patch.dora_scale() is None and patch.calculate_shape("") is None
    )


class BypassedForward:
    """Replaces the ``forward`` of a layer while changes are added to its result. Changes can come and go in any order."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._own = module.__dict__.get("forward")
        self._forward = module.forward
        self.changes: list[BypassForwardHook] = []

    def __call__(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        result = self._forward(x, *arguments, **options)
        for change in self.changes:
            result = result + change.contribution(x)
        return result

    def restore(self) -> None:
        """Put the layer's ``forward`` back."""
        if self._own is None:
            self._module.__dict__.pop("forward", None)
        else:
            self._module.__dict__["forward"] = self._own


class BypassForwardHook:
    """Adds the effect of *adapter* on the input, times *strength*, to the result of *module*, a linear layer or convolution."""

    def __init__(self, module: Any, adapter: WeightAdapterBase, strength: float, source: object = None) -> None:
        """*source* is whoever will take it out again."""
        if not isinstance(module, LAYERS):
            raise TypeError(f"a change can bypass linear layers and convolutions, not {type(module).__name__}")
        self.module = module
        self.adapter = adapter
        self.strength = strength
        self.source = source

    def inject(self) -> None:
        """Put the addition in place."""
        forward: Any = self.module.forward
        if not isinstance(forward, BypassedForward):
            forward = self.module.__dict__["forward"] = BypassedForward(self.module)
        forward.changes.append(self)

    def eject(self) -> None:
        """Remove the addition if it is in place."""
        forward: Any = self.module.forward
        if isinstance(forward, BypassedForward) and self in forward.changes:
            forward.changes.remove(self)
            if not forward.changes:
                forward.restore()

    def contribution(self, x: Tensor) -> Tensor:
        """The tensor to add to the layer's result for the input *x*."""
        return self.strength * self._change(x)

    def _change(self, x: Tensor) -> Tensor:
        shape = self.module.weight.shape
        if isinstance(self.adapter, LoRAAdapter) and self.adapter.weights[3] is None:
            up, down, alpha, *_ = self.adapter.weights
            inner = self._apply(x, down.to(x).reshape(down.shape[0], *shape[1:]))
            outer = up.to(x).flatten(1)
            changed = F.linear(inner, outer) if len(shape) == 2 else torch.einsum("or,br...->bo...", outer, inner)
            return changed * scale_by(alpha, down.shape[0])
        change, scale = self.adapter.difference(x.new_empty(0), x.dtype)
        return self._apply(x, change.reshape(shape)) * scale

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight) if isinstance(self.module, torch.nn.Linear) else self.module._conv_forward(x, weight, None)


def create_bypass_injections_from_patches(
    patcher: Patcher, patches: Mapping[str, WeightAdapterBase], strength: float
) -> list[PatcherInjection]:
    """One injection for all *patches* ({weight name: adapter}). Names must be whole weights of linear layers or convolutions.

    It holds no layer, so that it serves every clone, and keeps no model alive.
    """
    for key, adapter in patches.items():
        BypassForwardHook(layer_of(patcher, key), adapter, strength)
    beside = _BesideWeights(dict(patches), strength)
    return [PatcherInjection(beside.inject, beside.eject)]


class _BesideWeights:
    """Changes beside the weights of whatever patcher is loaded."""

    def __init__(self, patches: Mapping[str, WeightAdapterBase], strength: float) -> None:
        self._patches, self._strength = patches, strength

    def inject(self, patcher: Patcher) -> None:
        """Put them in place."""
        for key, adapter in self._patches.items():
            BypassForwardHook(layer_of(patcher, key), adapter, self._strength, self).inject()

    def eject(self, patcher: Patcher) -> None:
        """Take them out, if they are in place."""
        for key in reversed(list(self._patches)):
            forward: Any = layer_of(patcher, key).forward
            own = [change for change in getattr(forward, "changes", ()) if change.source is self]
            if own:
                own[-1].eject()
