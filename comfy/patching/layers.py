"""The layers of a module as units of loading: what each weighs, and which stay on the host when there is little room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from comfy.wrapper_tensors import stored_bytes

WeightFunctions = Sequence[Callable[[torch.Tensor], torch.Tensor]]


class LayerModule(Protocol):
    """The attributes that loading sets on a layer; those of :class:`comfy.ops.CastWeightBiasOp` if it can stream."""

    comfy_patched_weights: bool
    comfy_cast_weights: bool
    prev_comfy_cast_weights: bool
    weight_function: WeightFunctions
    bias_function: WeightFunctions
    fetcher: Any


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A module with parameters of its own: ``parameters`` maps their names to paths. ``can_stream``: it can fetch them per call."""

    name: str
    module: LayerModule
    parameters: dict[str, str]
    size_bytes: int
    can_stream: bool

    @property
    def is_resident(self) -> bool:
        """Whether its weights were put on the device."""
        return getattr(self.module, "comfy_patched_weights", False) is True

    @property
    def is_streamed(self) -> bool:
        """Whether it fetches its weights from the host at each call."""
        return not self.is_resident and hasattr(self.module, "prev_comfy_cast_weights")


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Which layers go to the device and which stay; ``buffer_bytes`` of the budget are left for fetching."""

    resident: tuple[Layer, ...]
    streamed: tuple[Layer, ...]
    buffer_bytes: int


def layers_of(model: torch.nn.Module) -> list[Layer]:
    """Every module of *model* with parameters of its own. A parameter that several share weighs once."""
    layers: list[Layer] = []
    weighed: set[int] = set()
    for name, module in _modules_of(model):
        own = {attribute: parameter for attribute, parameter in module._parameters.items() if parameter is not None}
        if own:
            size_bytes = sum(stored_bytes(parameter) for parameter in own.values() if id(parameter) not in weighed)
            weighed |= {id(parameter) for parameter in own.values()}
            paths = {attribute: f"{name}.{attribute}" if name else attribute for attribute in own}
            layers.append(Layer(name, cast(LayerModule, module), paths, size_bytes, hasattr(module, "comfy_cast_weights")))
    return layers


def _modules_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """As ``model.named_modules()``, which passes each module through a generator for each level of the tree."""
    seen: set[int] = set()
    waiting: list[tuple[str, torch.nn.Module]] = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield name, module
            prefix = f"{name}." if name else ""
            waiting.extend((prefix + child, below) for child, below in reversed(module._modules.items()) if below is not None)


def plan_layers(layers: Iterable[Layer], budget_bytes: float | None, buffer_bytes_for: Callable[[Layer], int]) -> LayerPlan:
    """Fill *budget_bytes* (None: no limit) with layers.

    Layers that cannot stream go to the device in any case, those that are there stay, then the largest first; each must leave
    room to fetch one as large as itself (*buffer_bytes_for* it), so that those after it can be streamed.
    """
    order = sorted(layers, key=lambda layer: (layer.can_stream, not layer.is_resident, -layer.size_bytes))
    resident, streamed, used_bytes, buffer_bytes = [], [], 0, 0
    for layer in order:
        buffer = max(buffer_bytes, buffer_bytes_for(layer))
        fits = budget_bytes is None or layer.is_resident or used_bytes + layer.size_bytes + buffer <= budget_bytes
        if fits or not layer.can_stream:
            resident.append(layer)
            used_bytes += layer.size_bytes
        else:
            streamed.append(layer)
            buffer_bytes = buffer
    return LayerPlan(tuple(resident), tuple(streamed), buffer_bytes)


def stream(module: LayerModule, weight_functions: WeightFunctions, bias_functions: WeightFunctions) -> None:
    """Let *module* fetch its weights at each call and pass them through the functions."""
    if not hasattr(module, "prev_comfy_cast_weights"):
        module.prev_comfy_cast_weights = module.comfy_cast_weights
    module.comfy_cast_weights = True
    module.weight_function = weight_functions
    module.bias_function = bias_functions


def wipe_lowvram_weight(m: LayerModule | torch.nn.Module) -> None:
    """Undo :func:`stream`, and forget all functions on the weights of *m*."""
    if hasattr(m, "prev_comfy_cast_weights"):
        m.comfy_cast_weights = m.prev_comfy_cast_weights
        del m.prev_comfy_cast_weights
    vars(m).pop("fetcher", None)
    for attribute in ("weight_function", "bias_function"):
        if hasattr(m, attribute):
            setattr(m, attribute, [])


def move_weight_functions(m: object, device: torch.device | None) -> int:
    """Move functions on the weights of *m* that have a ``move_to``. Returns the bytes they take."""
    if device is None:
        return 0
    functions = [*getattr(m, "weight_function", ()), *getattr(m, "bias_function", ())]
    return sum(function.move_to(device=device) for function in functions if hasattr(function, "move_to"))
