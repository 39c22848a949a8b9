"""A model file whose tensors come from the store of weights where they lie there, and go into it where they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from comfy.families.weight_source import FileSource, Shape, WeightSource, is_plain
from comfy.ram_model_store.mapping import MappedPart, dtype_name
from comfy.ram_model_store.part_format import ITEM_BYTES, SourceFacts, StoredTensor
from comfy.ram_model_store.writing import PartWriter, WritableBlock, copy_into
from comfy.units import MIB
from comfy.weight_files.fresh_memory import FreshMemory

MOST_COMMON_BYTES = 64 * MIB
Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class Shelf:
    """Where the tensors of one load come from and go to: *found* parts, the part that is being built (*current*, one of those), and the
    *writer* of the one that is being read. What is read before any part *is_building* is *common* to all: (file number, tensors) each.
    """

    found: list[MappedPart] = field(default_factory=list)
    current: MappedPart | None = None
    writer: PartWriter | None = None
    is_building: bool = False
    common: list[tuple[int, Tensors]] = field(default_factory=list)

    def facts(self, number: int) -> SourceFacts | None:
        """What any part that was found says of the model file *number*."""
        return self.found[0].table.sources[number] if self.found else None

    def stored(self, number: int, keys: list[str], dtype: torch.dtype | None) -> Tensors | None:
        """The tensors *keys* from the part that is being built, or, while none is, from any that was found."""
        if self.writer is not None:
            return None
        for part in self.found if self.current is None else [self.current]:
            tensors = part.tensors(number, keys, dtype)
            if tensors is not None:
                return tensors
        return None

    def note_common(self, number: int, tensors: Tensors) -> None:
        """Tensors that were taken while no part is being built: each part needs them again."""
        if tensors and not self.is_building:
            self.common.append((number, tensors))

    def write_common(self) -> None:
        """Copy what is common into the part that is being read."""
        writer = self.writer
        if writer is None:
            return
        if sum(tensor.nbytes for _, tensors in self.common for tensor in tensors.values()) > MOST_COMMON_BYTES:
            writer.problem = "its loader reads much before it knows which part it reads"
        for number, tensors in self.common:
            copy_into(writer, number, tensors)


class StoredSource:
    """The model file *name* with *number* among those of the load. *open_file* is called when something is not in the store."""

    def __init__(self, name: str, number: int, shelf: Shelf, open_file: Callable[[], WeightSource]) -> None:
        self.name, self._number, self._shelf, self._open_file = name, number, shelf, open_file
        self._opened: WeightSource | None = None
        facts = shelf.facts(number)
        if facts is None:
            source = self.opened()
            self._shapes, self.metadata = dict(source.shapes()), source.metadata
            facts = self._facts_of(source)
        else:
            self._shapes, self.metadata = {key: shape for key, (_, shape) in facts.tensors.items()}, facts.metadata
        self.facts = facts  # what a stored part says of the file; None where tensors of it cannot be stored

    def opened(self) -> WeightSource:
        """The file itself."""
        if self._opened is None:
            self._opened = self._open_file()
        return self._opened

    def _facts_of(self, source: WeightSource) -> SourceFacts | None:
        tensors = {key: (dtype_name(source.dtype(key)), tuple(shape)) for key, shape in self._shapes.items()}
        return SourceFacts(self.name, self.metadata, tensors) if all(kind in ITEM_BYTES for kind, _ in tensors.values()) else None

    @property
    def read_bytes(self) -> int | None:
        """Bytes read from the file itself."""
        return 0 if self._opened is None else self._opened.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        return self._shapes

    def dtype(self, key: str) -> torch.dtype:
        if self._opened is not None:
            return self._opened.dtype(key)
        assert self.facts is not None
        return getattr(torch, self.facts.tensors[key][0])

    def fixed_bytes(self, key: str) -> int | None:
        return None if self._opened is None else self._opened.fixed_bytes(key)

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> Tensors:
        """Views of what is stored; else read, into the part that is being written if there is one."""
        asked = list(keys)
        if not asked:
            return {}
        taken = self._shelf.stored(self._number, asked, dtype)
        if taken is None:
            taken = self._read(asked, dtype)
        self._shelf.note_common(self._number, taken)
        return taken

    def _read(self, keys: list[str], dtype: torch.dtype | None) -> Tensors:
        source, writer = self.opened(), self._shelf.writer
        if writer is None:
            return source.take(keys, dtype)
        if isinstance(source, FileSource):
            return self._read_into(writer, source, keys, dtype)
        taken = source.take(keys, dtype)
        if not all(map(is_plain, taken.values())):
            writer.problem = "tensors of a class of their own cannot be stored"
            return taken
        with torch.inference_mode(False):
            return copy_into(writer, self._number, taken) or taken

    def _read_into(self, writer: PartWriter, source: FileSource, keys: list[str], dtype: torch.dtype | None) -> Tensors:
        blocks: list[WritableBlock] = []

        def make_block(size_bytes: int) -> WritableBlock | FreshMemory:
            block = writer.block(size_bytes)
            if block is None:
                return FreshMemory(size_bytes)
            blocks.append(block)
            return block

        taken = source.take_into(make_block, keys, dtype)
        for block in blocks:
            begins = block.tensor.data_ptr() - block.start
            tensors = [StoredTensor(self._number, key, dtype_name(one.dtype), one.data_ptr() - begins) for key, one in taken.items()]
            writer.filled(block, tensors)
        return taken
