"""Gives a module whose parameters have the published names its weights."""

from collections.abc import Mapping

import torch

from comfy.families.conversion_plan import assign
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.weight_source import WeightSource, is_plain

Shape = tuple[int, ...]


def load_published(
    module: torch.nn.Module, source: WeightSource, dtype: torch.dtype | None, what: str, device: torch.device | None = None
) -> None:
    """Make the tensors of *source* the parameters of *module*, floating-point ones in *dtype* (None: as stored), on *device* (None:
    where they come).

    Nothing is copied where dtype and layout are right already. A 1x1 convolution may be stored as a matrix and the other way round;
    tensors of a node pack's class are taken as they are. Tensors that nothing uses are named in the log; *what* names the component.
    Raises ``IncompleteModelError`` when tensors are missing or have another shape, ``QuantisedModelError`` for integers.
    """
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    shapes = source.shapes()
    _check(expected, shapes, f"{what} in {source.name}")
    say_unused(source.name, what, shapes, expected)
    values = source.take([name for name in shapes if name in expected], dtype)
    for name, value in values.items():
        if is_plain(value) and not value.is_floating_point():
            raise QuantisedModelError(f"{what} in {source.name}: {name} is stored as {value.dtype}, which is not supported")
    with torch.inference_mode(False):
        for name, value in values.items():
            if is_plain(value) and tuple(value.shape) != expected[name]:
                values[name] = value.view(expected[name])
    assign(module, values if device is None else {name: value.to(device) for name, value in values.items()})


def _check(expected: Mapping[str, Shape], shapes: Mapping[str, Shape], what: str) -> None:
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise IncompleteModelError(f"{what}: {len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    wrong = sorted(name for name, shape in expected.items() if _as_matrix(shapes[name]) != _as_matrix(shape))
    if wrong:
        found, needed = list(shapes[wrong[0]]), list(expected[wrong[0]])
        raise IncompleteModelError(f"{what}: {wrong[0]} has shape {found} where {needed} is needed ({len(wrong)} tensors differ)")


def _as_matrix(shape: Shape) -> Shape:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)
