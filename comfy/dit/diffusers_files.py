"""Presents transformers' files in diffusers' names under the published names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from comfy.dit.family import Family, Place, Shape
from comfy.dit.registry import FAMILIES
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, naming_file
from comfy.families.weight_source import WeightSource
from comfy.quantisation.weights import dequantised, is_quantised

WHAT = "the diffusion model"
Parts = list[tuple[str, Place]]


class JoinedSource:
    """*source* under published names, each joined from the tensors that *parts* names for it, in order.

    Parts that were read one behind the other, as a file's are, become one view; otherwise they are copied together.
    """

    def __init__(self, source: WeightSource, parts: Mapping[str, Parts], shapes: Mapping[str, Shape]) -> None:
        self._source, self._parts, self._shapes = source, parts, shapes
        self.name, self.metadata = source.name, source.metadata

    @property
    def read_bytes(self) -> int | None:
        return self._source.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        return self._shapes

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(self._parts[key][0][0])

    def fixed_bytes(self, key: str) -> int | None:
        """Only of weights that are one tensor of the file: joined ones do not stay quantised."""
        parts = self._parts[key]
        return self._source.fixed_bytes(parts[0][0]) if len(parts) == 1 and not parts[0][1].swapped else None

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        asked = list(keys)
        taken = self._source.take([name for key in asked for name, _ in self._parts[key]], dtype)
        with torch.inference_mode(False):
            return {key: self._joined([taken.pop(name) for name, _ in self._parts[key]], self._parts[key], dtype) for key in asked}

    @staticmethod
    def _joined(tensors: list[torch.Tensor], parts: Parts, dtype: torch.dtype | None) -> torch.Tensor:
        if len(parts) == 1 and not parts[0][1].swapped:
            place = parts[0][1]
            return tensors[0].view(1, -1, 1, 1) if place.channels else tensors[0].flatten() if place.flat else tensors[0]
        values = [dequantised(tensor, dtype) if is_quantised(tensor) else tensor for tensor in tensors]
        if len(values) == 1:
            return torch.cat(values[0].chunk(2)[::-1])
        return _as_one(values)


def _as_one(tensors: list[torch.Tensor]) -> torch.Tensor:
    """*tensors*, contiguous and alike but for their rows, as one: a view where they lie one behind the other, else a copy."""
    first, end = tensors[0], tensors[0].storage_offset() + tensors[0].numel()
    for tensor in tensors[1:]:
        if tensor.untyped_storage()._cdata != first.untyped_storage()._cdata or tensor.storage_offset() != end:
            return torch.cat(tensors)
        end += tensor.numel()
    rows = sum(len(tensor) for tensor in tensors)
    return first.as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())


def as_published_transformer(source: WeightSource) -> WeightSource:
    """*source* itself, or under the published names where it is a known transformer in diffusers' names.

    Raises ``IncompleteModelError`` for such a file whose tensors do not fit together.
    """
    shapes = source.shapes()
    for family in FAMILIES:
        if family.diffusers is not None and all(mark in shapes for mark in family.diffusers.marks):
            with naming_file(source.name, WHAT):
                return _published(source, family)
    return source


def _published(source: WeightSource, family: Family) -> WeightSource:
    assert family.diffusers is not None
    shapes = source.shapes()
    places = family.diffusers.places(family.diffusers.sizes(shapes))
    say_unused(source.name, WHAT, shapes, set(places))
    parts: dict[str, Parts] = {}
    for name, place in places.items():
        if name in shapes:
            parts.setdefault(place.key, []).append((name, place))
    joined = {}
    for key, found in parts.items():
        found.sort(key=lambda one: one[1].start)
        rows = 0
        for name, place in found:
            if place.length and (place.start != rows or shapes[name][0] != place.length):
                raise IncompleteModelError(f"{name} has shape {list(shapes[name])}, which does not fit rows {rows} on of {key}")
            rows += shapes[name][0]
        rest = shapes[found[0][0]][1:]
        place = found[0][1]
        joined[key] = (1, rows, 1, 1) if place.channels else (rows * math.prod(rest),) if place.flat else (rows, *rest)
    return JoinedSource(source, parts, joined)
