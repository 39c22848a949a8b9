"""Results as they are at the moment they are handed to providers, because later nodes may change tensors in place.

A result goes outside this process only if it is plain data: numbers, text, bytes, None, lists, tuples, dicts and sets of such, tensors and
arrays. Models, blockers and whatever else an object may be stay inside. Tensors are known by their class, so torch is not imported.
"""

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PLAIN_TYPES = frozenset((type(None), bool, int, float, complex, str, bytes))
_WEIGHTLESS = PLAIN_TYPES - {str, bytes}
MAX_DEPTH = 200
# Below this copying takes less than a trip to another thread.
COPY_INLINE_BYTES = 1024**2


class NotPlain(ValueError):
    """A value that stays in this process; the message says what is in it."""


@dataclass(slots=True)
class Handed:
    """A walk's finding: *rebuild* makes the copy, *bytes* is what its tensors and arrays take."""

    bytes: int
    rebuild: Callable[[], Any]


@dataclass(slots=True)
class VersionBook:
    """The versions at which a prompt's tensors were first handed over: one that was changed in place since then is recognised.

    Tensors made in inference mode do not count versions; these are always copied at once, and no change of them can be told.
    """

    _seen: dict[int, tuple[Any, int]] = field(default_factory=dict)

    def is_changed(self, tensor: Any) -> bool:
        """Whether *tensor* was changed since this was asked first."""
        version = tensor_version(tensor)
        if version is None:
            return False
        known = self._seen.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._seen[id(tensor)] = weakref.ref(tensor), version
            return False
        return known[1] != version


def is_tensor(value: Any) -> bool:
    """Whether *value* is exactly a ``torch.Tensor`` (a subclass may mean more than its numbers)."""
    kind = type(value)
    return kind.__module__ == "torch" and kind.__name__ == "Tensor"


def is_array(value: Any) -> bool:
    """Whether *value* is exactly a numpy array."""
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ == "ndarray"


def tensor_version(tensor: Any) -> int | None:
    """How often the tensor was changed in place, None for one that does not count."""
    return None if tensor.is_inference() else int(tensor._version)


def examine(value: Any, book: VersionBook) -> Handed:
    """Look at all of *value*. Raises ``NotPlain`` when something in it stays inside or was changed since it was handed over before."""
    sizes: dict[int, int] = {}
    _measure(value, book, sizes, MAX_DEPTH)
    return Handed(sum(sizes.values()), lambda: _copy(value, {}))


def copy_plain(outputs: Any) -> tuple[list[Any], int] | None:
    """A copy of *outputs*, lists of plain values, and the bytes of the texts in it; None when there is anything else in it.

    What ``examine`` finds as well, in a fraction of the time: many results are numbers.
    """
    if type(outputs) is not list:
        return None
    size_bytes = 0
    for items in outputs:
        if type(items) is not list:
            return None
        for item in items:
            kind = type(item)
            if kind not in PLAIN_TYPES:
                return None
            if kind not in _WEIGHTLESS:
                size_bytes += len(item)
    return [items[:] for items in outputs], size_bytes


async def take_copy(handed: Handed) -> Any:
    """The copy, made on another thread if it takes a while."""
    if handed.bytes <= COPY_INLINE_BYTES:
        return handed.rebuild()
    return await asyncio.to_thread(handed.rebuild)


def _measure(value: Any, book: VersionBook, sizes: dict[int, int], depth: int) -> None:
    if depth == 0:
        raise NotPlain(f"it is nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if kind in PLAIN_TYPES:
        if kind in (str, bytes):
            sizes[id(value)] = len(value)
    elif kind in (list, tuple, set, frozenset):
        for item in value:
            if type(item) not in _WEIGHTLESS:
                _measure(item, book, sizes, depth - 1)
    elif kind is dict:
        for key, item in value.items():
            _measure(key, book, sizes, depth - 1)
            _measure(item, book, sizes, depth - 1)
    elif is_tensor(value):
        if "strided" not in str(value.layout) or value.is_quantized or value.device.type == "meta" or value.requires_grad:
            raise NotPlain("it holds a tensor that is sparse, quantized, without data or part of an autograd graph")
        if book.is_changed(value):
            raise NotPlain("a tensor in it was changed in place by a later node")
        sizes[id(value)] = value.numel() * value.element_size()
    elif is_array(value) and not value.dtype.hasobject:
        sizes[id(value)] = value.nbytes
    else:
        raise NotPlain(f"it holds an object of type {kind.__module__}.{kind.__qualname__}")


def _copy(value: Any, done: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in PLAIN_TYPES:
        return value
    if id(value) in done:
        return done[id(value)]
    if kind is dict:
        made: Any = {key: _copy(item, done) for key, item in value.items()}
    elif kind in (list, tuple):
        made = kind([item if type(item) in PLAIN_TYPES else _copy(item, done) for item in value])
    elif kind in (set, frozenset):
        made = value if kind is frozenset else set(value)
    elif is_tensor(value):
        made = value.detach().clone()
    else:
        made = value.copy(order="K")
    done[id(value)] = made
    return made
