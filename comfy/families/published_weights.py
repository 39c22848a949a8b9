"""Gives a module whose parameters have the published names its weights."""

from collections.abc import Mapping

import torch

from comfy.families.conversion_plan import assign
from comfy.families.model_errors import IncompleteModelError
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]


def load_published(module: torch.nn.Module, source: WeightSource, dtype: torch.dtype | None, what: str) -> dict[str, torch.Tensor]:
    """Make the tensors of *source* the parameters of *module*, floating ones in *dtype* (None: as stored); returns them by name.

    Nothing is copied where dtype and layout are right already. A 1x1 convolution may be stored as a matrix and the other way round.
    *what* names the component in errors. Raises ``IncompleteModelError`` when tensors are missing or have another shape.
    """
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    shapes = source.shapes()
    _check(expected, shapes, f"{what} in {source.name}")
    taken = source.take([name for name in shapes if name in expected], dtype)
    with torch.inference_mode(False):
        values = {name: value if tuple(value.shape) == expected[name] else value.view(expected[name]) for name, value in taken.items()}
    assign(module, values)
    return values


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
