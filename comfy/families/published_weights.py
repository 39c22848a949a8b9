"""Gives a module whose parameters have the published names its weights."""

from collections.abc import Mapping

import torch

from comfy.families.conversion_plan import assign
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.quantised_layers import is_padded, settled
from comfy.families.weight_source import WeightSource, is_plain
from comfy.quantisation.weights import dequantised, is_quantised

Shape = tuple[int, ...]


def load_published(
    module: torch.nn.Module,
    source: WeightSource,
    dtype: torch.dtype | None,
    what: str,
    device: torch.device | None = None,
    in_float32: tuple[str, ...] = (),
) -> None:
    """Make the tensors of *source* the parameters of *module*, floating-point ones in *dtype* (None: as stored), on *device* (None:
    where they come). Those whose names begin with one of *in_float32* are kept in float32.

    Nothing is copied where dtype and layout are right already; quantised weights stay as they are in linear layers. A 1x1 convolution may
    be stored as a matrix and the other way round; tensors of a node pack's class are taken as they are, and layers of a pack that load
    their weights themselves are left to it. Tensors that nothing uses are named in the log; *what* names the component. Raises
    ``IncompleteModelError`` when tensors are missing or have another shape, ``QuantisedModelError`` for integers.
    """
    layers = _own_loaders(module)
    own = {name for name in source.shapes() if name.rpartition(".")[0] in layers}
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters() if name.rpartition(".")[0] not in layers}
    shapes = source.shapes()
    _check(expected, source, f"{what} in {source.name}")
    say_unused(source.name, what, shapes, {*expected, *own})
    wide = [name for name in shapes if name in expected and name.startswith(in_float32)] if in_float32 else []
    values = source.take([name for name in shapes if (name in expected or name in own) and name not in wide], dtype)
    taken = {name: values.pop(name) for name in own}
    taken = {name: dequantised(value, dtype) if is_quantised(value) else value for name, value in taken.items()}
    _load_themselves(layers, taken, f"{what} in {source.name}", device)
    values = settled(module, values, dtype) | source.take(wide, torch.float32)
    for name, value in values.items():
        if is_plain(value) and not value.is_floating_point():
            raise QuantisedModelError(f"{what} in {source.name}: {name} is stored as {value.dtype}, which is not supported")
    with torch.inference_mode(False):
        for name, value in values.items():
            if is_plain(value) and tuple(value.shape) != expected[name]:
                values[name] = value.view(expected[name])
    assign(module, values if device is None else {name: value.to(device) for name, value in values.items()})


def _own_loaders(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers of *module*, by path, that take their tensors in a way of their own, as a node pack's class does."""
    plain = torch.nn.Module._load_from_state_dict
    return {path: layer for path, layer in module.named_modules() if type(layer)._load_from_state_dict is not plain}


def _load_themselves(
    layers: Mapping[str, torch.nn.Module], values: Mapping[str, torch.Tensor], what: str, device: torch.device | None
) -> None:
    """Give each of *layers* its tensors of *values* the way torch does. Raises ``IncompleteModelError`` for what it finds missing."""
    tensors: dict[str, dict[str, torch.Tensor]] = {path: {} for path in layers}
    for name, value in values.items():
        tensors[name.rpartition(".")[0]][name] = value if device is None else value.to(device)
    for path, layer in layers.items():
        missing: list[str] = []
        errors: list[str] = []
        with torch.inference_mode(False):
            layer._load_from_state_dict(tensors[path], f"{path}.", {"assign_to_params_buffers": True}, True, missing, [], errors)
        if missing or errors:
            raise IncompleteModelError(f"{what}: {'; '.join(errors) or f'the tensor {missing[0]} is missing'}")


def _check(expected: Mapping[str, Shape], source: WeightSource, what: str) -> None:
    shapes = source.shapes()
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise IncompleteModelError(f"{what}: {len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    wrong = sorted(name for name, shape in expected.items() if _as_matrix(shapes[name]) != _as_matrix(shape))
    wrong = [name for name in wrong if source.fixed_bytes(name) is None or not is_padded(shapes[name], expected[name])]
    if wrong:
        found, needed = list(shapes[wrong[0]]), list(expected[wrong[0]])
        raise IncompleteModelError(f"{what}: {wrong[0]} has shape {found} where {needed} is needed ({len(wrong)} tensors differ)")


def _as_matrix(shape: Shape) -> Shape:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def parameters_from_buffers(module: torch.nn.Module) -> None:
    """Make the buffers of *module* that files hold (filters, bases of transforms) parameters, in place."""
    for part in module.modules():
        kept = [name for name in part._buffers if name not in part._non_persistent_buffers_set]
        for name in kept:
            value = part._buffers.pop(name)
            assert value is not None
            part.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
