"""Finds the module parameters that hold a weight known by ComfyUI's name.

Node packs, LoRA files and saved checkpoints speak of ``diffusion_model.input_blocks.1.1.proj_in.weight``. The modules
come from diffusers and transformers, which name, split and shape some weights differently. A :class:`WeightNames` table
translates. It holds plain values only: no tensors and no modules, and it does not need torch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WeightPart:
    """One module parameter and the slice of the named tensor that it holds.

    The slice is ``named.narrow(dim, start, length)``; ``shape`` is the parameter's shape when it differs from the
    slice's (a 1x1 convolution kept as a linear layer), else None.
    """

    parameter: str
    dim: int = 0
    start: int = 0
    length: int = 0
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.dim < 0 or self.start < 0 or self.length < 0:
            raise ValueError(f"negative dim, start or length in the part for {self.parameter!r}")


class WeightNames(Mapping[str, tuple[WeightPart, ...]]):
    """Maps each ComfyUI weight name of a model to the parts that make it up, in order along their ``dim``.

    ``shapes`` gives the named tensor's full shape. Immutable after construction; any thread may read it.
    """

    def __init__(self, parts: Mapping[str, tuple[WeightPart, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
        missing = parts.keys() - shapes.keys()
        if missing:
            raise ValueError(f"no shape for {sorted(missing)[0]!r} and {len(missing) - 1} other weight names")
        self._parts = dict(parts)
        self._shapes = dict(shapes)
        self._owners = {part.parameter: key for key, group in self._parts.items() for part in group}

    def __getitem__(self, key: str) -> tuple[WeightPart, ...]:
        return self._parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of the whole tensor that *key* names. Raises ``KeyError`` for an unknown name."""
        return self._shapes[key]

    def name_of(self, parameter: str) -> str | None:
        """The ComfyUI name whose tensor holds the module's *parameter*, or None."""
        return self._owners.get(parameter)

    def is_whole(self, key: str) -> bool:
        """Whether exactly one parameter holds *key*."""
        return len(self._parts[key]) == 1

    def split(self, key: str, tensor: Any) -> dict[str, Any]:
        """Cut *tensor*, a value for the weight *key*, into {module parameter: view}.

        Raises ``KeyError`` for an unknown name and ``ValueError`` when the weight has another shape.
        """
        if tuple(tensor.shape) != self._shapes[key]:
            raise ValueError(f"{key} has shape {self._shapes[key]}, not {tuple(tensor.shape)}")
        pieces = {}
        if self.is_whole(key) and self._parts[key][0].shape is None:
            return {self._parts[key][0].parameter: tensor}
        for part in self._parts[key]:
            piece = tensor.narrow(part.dim, part.start, part.length) if tensor.ndim else tensor
            pieces[part.parameter] = piece if part.shape is None else piece.reshape(part.shape)
        return pieces

    def join(self, key: str, parameter: Callable[[str], Any], concatenate: Callable[..., Any]) -> Any:
        """The tensor that *key* names, joined from ``parameter(name)`` for each part.

        A single part gives a view with the named shape (itself where it has that shape), several give ``concatenate(pieces, dim)``, which
        copies (pass ``torch.cat``).
        """
        parts = self._parts[key]
        if len(parts) == 1:
            whole = parameter(parts[0].parameter)
            return whole if tuple(whole.shape) == self._shapes[key] else whole.reshape(self._shapes[key])
        pieces = []
        for part in parts:
            shape = list(self._shapes[key])
            shape[part.dim] = part.length
            pieces.append(parameter(part.parameter).reshape(shape))
        return concatenate(pieces, parts[0].dim)

    def prefixed(self, key_prefix: str, parameter_prefix: str | None = None) -> "WeightNames":
        """This table for a module that contains this one: names get *key_prefix*, parameters *parameter_prefix* (default: the same)."""
        inner = key_prefix if parameter_prefix is None else parameter_prefix
        parts = {
            key_prefix + key: tuple(WeightPart(inner + part.parameter, part.dim, part.start, part.length, part.shape) for part in group)
            for key, group in self._parts.items()
        }
        return WeightNames(parts, {key_prefix + key: shape for key, shape in self._shapes.items()})

    def merged(self, other: "WeightNames") -> "WeightNames":
        """A table with the names of both. Raises ``ValueError`` if a name is in both."""
        both = self._parts.keys() & other._parts.keys()
        if both:
            raise ValueError(f"{sorted(both)[0]!r} is in both tables")
        return WeightNames({**self._parts, **other._parts}, {**self._shapes, **other._shapes})
