"""Opens a model file of any supported kind as a weight source."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.utils
from comfy.families.weight_source import FileSource, StateDictSource, WeightSource
from comfy.weight_reader import Allocator, WeightReader, plain_memory

SAFETENSORS_EXTENSIONS = (".safetensors", ".sft")


@contextmanager
def open_model_file(path: str, allocate: Allocator = plain_memory) -> Iterator[WeightSource]:
    """The tensors of *path*, open as long as the context lasts.

    Safetensors files are read tensor by tensor as they are taken, into memory from *allocate*; anything else is unpickled whole,
    restricted to plain tensors. Raises ``FileNotFoundError``, ``ModelFileError`` or ``ValueError``, naming the file.
    """
    if str(path).lower().endswith(SAFETENSORS_EXTENSIONS):
        with WeightReader(path) as reader:
            yield FileSource(reader, allocate)
        return
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    yield StateDictSource(tensors, str(path), metadata, consume=True)
