"""Works out from shapes alone which slice of which file tensor becomes which module parameter.

A converter (diffusers' or ours) runs once over stand-ins that share one imaginary storage; the place of each result in that
storage shows which tensor it is a view of. This reads no weights, so a reader can then fetch exactly what a component needs, in its final
dtype, and the parameters become views of what was read.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from comfy.families.conversion_mode import ViewConversionMode
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, ModelFileError, QuantisedModelError
from comfy.families.quantised_layers import settled
from comfy.families.weight_names import WeightNames, WeightPart
from comfy.families.weight_source import WeightSource, is_plain
from comfy.quantisation.weights import dequantised, is_quantised
from comfy.wrapper_tensors import parameter_over

Shape = tuple[int, ...]
Converter = Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class TensorView:
    """A strided view of the contiguous tensor *key*: ``tensor.as_strided(shape, stride, offset)``, in elements."""

    key: str
    offset: int
    shape: Shape
    stride: Shape

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The view of *tensor*, which must be contiguous; both share the memory. A node pack's tensor is taken whole, untouched.

        Raises ``QuantisedModelError`` where a part of such a tensor is needed.
        """
        if not is_plain(tensor):
            if self.offset or tuple(tensor.shape) != self.shape:
                raise QuantisedModelError(f"{self.key} is a {type(tensor).__name__}, which cannot be cut into the weights it is needed for")
            return tensor
        return tensor.as_strided(self.shape, self.stride, tensor.storage_offset() + self.offset)


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Maps each module parameter's name to the view that becomes its value; ``shapes`` gives the file tensors' shapes."""

    views: Mapping[str, TensorView]
    shapes: Mapping[str, Shape]

    def keys(self) -> list[str]:
        """The names of the file tensors that are needed, each once, in the order of their first use."""
        return list(dict.fromkeys(view.key for view in self.views.values()))

    def parameters(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The parameters' values as views of *tensors* (key → contiguous tensor of the planned shape)."""
        with torch.inference_mode(False):
            return {name: view.of(tensors[view.key]) for name, view in self.views.items()}

    def weight_names(self) -> WeightNames:
        """The table from file names to parameters, without transposed parameters: those equal no slice of the named tensor."""
        groups: dict[str, list[WeightPart]] = {}
        for name, view in self.views.items():
            part = _as_part(name, view, self.shapes[view.key])
            if part is not None:
                groups.setdefault(view.key, []).append(part)
        return WeightNames(
            {key: tuple(sorted(parts, key=lambda part: part.start)) for key, parts in groups.items()},
            {key: self.shapes[key] for key in groups},
        )


def plan_conversion(shapes: Mapping[str, Shape], convert: Converter) -> ConversionPlan:
    """Run *convert* over stand-ins for tensors of *shapes* and record which tensor each result is a view of.

    Raises ``ModelFileError`` when a result is a copy, because such a converter would double the memory that a load needs, and
    ``IncompleteModelError`` when the converter asks for a tensor that *shapes* lacks.
    """
    named = {key: tuple(shape) for key, shape in shapes.items() if math.prod(shape)}
    starts, total = [], 0
    for shape in named.values():
        starts.append(total)
        total += math.prod(shape)
    pool = torch.empty(total, device="meta")
    keys = list(named)
    stand_ins = {key: pool[start : start + math.prod(named[key])].view(named[key]) for key, start in zip(keys, starts)}
    with ViewConversionMode():
        converted = convert(stand_ins)
    views = {}
    for name, tensor in converted.items():
        if tensor is None:
            raise IncompleteModelError(f"the file has no tensor for {name}")
        if tensor.untyped_storage()._cdata != pool.untyped_storage()._cdata:
            raise ModelFileError(f"converting {name} would copy it; its family's converter needs a view")
        offset = int(tensor.storage_offset())
        index = bisect.bisect_right(starts, offset) - 1
        views[name] = TensorView(keys[index], offset - starts[index], tuple(tensor.shape), tuple(tensor.stride()))
    return ConversionPlan(views, named)


def check_against(plan: ConversionPlan, module: torch.nn.Module, what: str) -> None:
    """Raise ``IncompleteModelError`` unless *plan* gives every parameter of *module* a value of its shape.

    *what* names the component in the error text.
    """
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    missing = sorted(expected.keys() - plan.views.keys())
    wrong = sorted(name for name in expected.keys() & plan.views.keys() if plan.views[name].shape != expected[name])
    if missing:
        raise IncompleteModelError(f"{what}: {len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    if wrong:
        view = plan.views[wrong[0]]
        raise IncompleteModelError(
            f"{what}: {view.key} has shape {list(view.shape)} where {list(expected[wrong[0]])} is needed ({len(wrong)} tensors differ)"
        )


def load_parameters(
    module: torch.nn.Module, source: WeightSource, plan: ConversionPlan, dtype: torch.dtype, what: str, device: torch.device | None = None
) -> ConversionPlan:
    """Give *module* the weights that *plan* takes from *source*, floating ones in *dtype*, on *device* (None: where they come).

    Tensors of *source* that nothing uses are named in the log; *what* names the component. Returns the plan for the module's parameters
    alone. Raises ``IncompleteModelError``, before anything is read, unless every parameter gets a value of its shape, and
    ``QuantisedModelError`` for integers where numbers are needed.
    """
    check_against(plan, module, f"{what} in {source.name}")
    needed = {name for name, _ in module.named_parameters()}
    plan = ConversionPlan({name: view for name, view in plan.views.items() if name in needed}, plan.shapes)
    keys = plan.keys()
    say_unused(source.name, what, source.shapes(), set(keys))
    tensors = source.take(keys, dtype)
    for view in plan.views.values():  # what is cut or reshaped is no quantised weight any more
        if is_quantised(tensors[view.key]) and (view.offset or view.shape != tuple(tensors[view.key].shape)):
            tensors[view.key] = dequantised(tensors[view.key], dtype).contiguous()
    for key, tensor in tensors.items():
        if is_plain(tensor) and not tensor.is_floating_point():
            raise QuantisedModelError(f"{what} in {source.name}: {key} is stored as {tensor.dtype}, which is not supported")
    values = settled(module, plan.parameters(tensors), dtype)
    assign(module, values if device is None else {name: value.to(device) for name, value in values.items()})
    return plan


def assign(module: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Make *values* the parameters of *module* without copying them. Values without a parameter of that name are ignored, and parameters
    without a value stay.
    """
    owners: dict[str, Any] = dict(module.named_modules())
    with torch.inference_mode(False):
        for name in [name for name, _ in module.named_parameters() if name in values]:
            path, _, leaf = name.rpartition(".")
            owners[path]._parameters[leaf] = parameter_over(values[name])


def _as_part(name: str, view: TensorView, shape: Shape) -> WeightPart | None:
    if torch.empty(view.shape, device="meta").stride() != view.stride and math.prod(view.shape) > 1:
        squeezed = [(size, step) for size, step in zip(view.shape, view.stride) if size != 1]
        expected = math.prod(view.shape)
        for size, step in squeezed:
            expected //= size
            if step != expected:
                return None
    elements = math.prod(view.shape)
    if elements == math.prod(shape):
        length = shape[0] if shape else 0
        return WeightPart(name, 0, 0, length, None if view.shape == shape else view.shape)
    row = math.prod(shape[1:])
    if view.offset % row or elements % row:
        return None
    length = elements // row
    return WeightPart(name, 0, view.offset // row, length, None if view.shape == (length, *shape[1:]) else view.shape)
