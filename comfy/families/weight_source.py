"""One interface to a model's tensors, whether they are still in a file or already in a state dict."""

import math
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Protocol

import torch

from comfy.weight_files.reader import MakeBlock, WeightReader
from comfy.wrapper_tensors import stored_bytes

Shape = tuple[int, ...]
SMALL_ELEMENTS = 4096


class WeightSource(Protocol):
    """Tensors by name. Asking for shapes and dtypes costs nothing; values cost a read or a cast."""

    @property
    def name(self) -> str:
        """Where the tensors come from, for messages."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata in the file's header; empty if there is none."""

    @property
    def read_bytes(self) -> int | None:
        """Bytes read from the file so far; None if that is unknown."""

    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor, by name."""

    def dtype(self, key: str) -> torch.dtype:
        """The stored dtype of *key*. Raises ``KeyError`` for an unknown name."""

    def fixed_bytes(self, key: str) -> int | None:
        """The bytes that *key* takes whatever dtype is asked for, as a quantised weight does; None where the dtype decides."""

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """The tensors *keys*: contiguous, on the CPU or where they already are, floating-point ones in *dtype* (None: as stored).

        Blocks on reading. Raises ``KeyError`` for an unknown name.
        """


class FileSource:
    """A safetensors file. Each :meth:`take` reads only the requested tensors, into one block of fresh memory."""

    def __init__(self, reader: WeightReader) -> None:
        self._reader = reader
        self.name = reader.header.path
        self.metadata = reader.header.metadata
        self.read_bytes: int | None = 0

    def shapes(self) -> Mapping[str, Shape]:
        return {key: entry.shape for key, entry in self._reader.header.entries.items()}

    def dtype(self, key: str) -> torch.dtype:
        return self._reader.header.entries[key].dtype

    def fixed_bytes(self, key: str) -> int | None:
        return None

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        wanted = list(keys)
        return self._counted(self._reader.read(wanted, dtype), wanted)

    def take_into(self, make_block: MakeBlock, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """:meth:`take`, into the one block of memory that *make_block* gives for its size in bytes."""
        wanted = list(keys)
        return self._counted(self._reader.read(wanted, dtype, make_block=make_block), wanted)

    def _counted(self, tensors: dict[str, torch.Tensor], keys: list[str]) -> dict[str, torch.Tensor]:
        entries = self._reader.header.entries
        self.read_bytes = (self.read_bytes or 0) + sum(entries[key].stop - entries[key].start for key in keys)
        return tensors


class StateDictSource:
    """Tensors in memory. With *consume*, :meth:`take` removes them from the dict, so that a cast frees the originals one by one.

    Small ones, which tell what a model is, can be taken again all the same.
    """

    def __init__(
        self,
        state_dict: MutableMapping[str, torch.Tensor],
        name: str = "state dict",
        metadata: Mapping[str, str] | None = None,
        consume: bool = False,
    ) -> None:
        self._state_dict = state_dict
        self._consume = consume
        self._small: dict[str, torch.Tensor] = {}  # those that left the dict
        self.name = name
        self.metadata = metadata or {}
        self.read_bytes: int | None = None

    def shapes(self) -> Mapping[str, Shape]:
        return {key: tuple(tensor.shape) for key, tensor in self._all().items() if hasattr(tensor, "shape")}

    def dtype(self, key: str) -> torch.dtype:
        return self._all()[key].dtype

    def fixed_bytes(self, key: str) -> int | None:
        tensor = self._all()[key]
        return None if is_plain(tensor) else stored_bytes(tensor)

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """The dict's own tensors where the dtype is right and the layout contiguous, or a node pack made their class; else new ones."""
        taken = {}
        for key in keys:
            tensor = self._pop(key) if self._consume else self._state_dict[key]
            if not is_plain(tensor):
                taken[key] = tensor
                continue
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            taken[key] = tensor.detach().to(wanted).contiguous()
        return taken

    def _pop(self, key: str) -> torch.Tensor:
        tensor = self._small[key] if key in self._small else self._state_dict.pop(key)
        if is_plain(tensor) and tensor.numel() <= SMALL_ELEMENTS:
            self._small[key] = tensor
        return tensor

    def _all(self) -> Mapping[str, torch.Tensor]:
        return ChainMap(self._small, self._state_dict) if self._small else self._state_dict


class PrefixedSource:
    """The tensors of *source* below *prefix*, under names that begin with *added* instead."""

    def __init__(self, source: WeightSource, prefix: str, added: str = "") -> None:
        self._source = source
        self._prefix = prefix
        self._added = added
        self.name = source.name
        self.metadata = source.metadata

    @property
    def read_bytes(self) -> int | None:
        """Bytes read for the whole source."""
        return self._source.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        return {self._inner(key): shape for key, shape in self._source.shapes().items() if key.startswith(self._prefix)}

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(self._outer(key))

    def fixed_bytes(self, key: str) -> int | None:
        return self._source.fixed_bytes(self._outer(key))

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        return {self._inner(key): tensor for key, tensor in self._source.take(map(self._outer, keys), dtype).items()}

    def _inner(self, key: str) -> str:
        return self._added + key[len(self._prefix) :]

    def _outer(self, key: str) -> str:
        return self._prefix + key[len(self._added) :]


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether *tensor* is torch's own: tensors of a node pack's class carry a meaning of their own and are handed on untouched."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


def most_common_dtype(sources: Iterable[WeightSource]) -> torch.dtype | None:
    """The dtype that most elements in *sources* have, of those that hold numbers with a point if there are any; None without tensors."""
    elements: Counter[torch.dtype] = Counter()
    for source in sources:
        for key, shape in source.shapes().items():
            elements[source.dtype(key)] += math.prod(shape)
    floating = {dtype: count for dtype, count in elements.items() if dtype.is_floating_point}
    return max(floating or elements, key=elements.__getitem__, default=None)
