"""Opens a model file of any supported kind as a weight source."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.utils
from comfy.families.weight_source import FileSource, StateDictSource, WeightSource
from comfy.weight_files.reader import WeightReader
from comfy.weight_files.state_dicts import SAFETENSORS_EXTENSIONS


@contextmanager
def open_model_file(path: str, drop_pages: bool = False, between_chunks: Callable[[], None] | None = None) -> Iterator[WeightSource]:
    """The tensors of *path*, open as long as the context lasts.

    Safetensors files are read tensor by tensor as they are taken; anything else is unpickled whole, restricted to plain tensors.
    *drop_pages* and *between_chunks* are :class:`WeightReader`'s: leave nothing behind in the system's page cache, and a check that may
    end a read by raising; without effect on files that are unpickled, but for one check before and after.
    Raises ``FileNotFoundError``, ``ModelFileError`` or ``ValueError``, naming the file.
    """
    if str(path).lower().endswith(SAFETENSORS_EXTENSIONS):
        with WeightReader(path, drop_pages, between_chunks) as reader:
            yield FileSource(reader)
        return
    check = between_chunks or (lambda: None)
    check()
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    check()
    yield StateDictSource(tensors, str(path), metadata, consume=True)
