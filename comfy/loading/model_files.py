"""The files of one load: opened when the first part of them is read, closed once."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import comfy.model_management
from comfy.families.quantised_weights import QuantisedSource, plain_weights
from comfy.families.weight_source import WeightSource
from comfy.interruption import interrupt_flag
from comfy.quantisation import kitchen
from comfy.weight_files.opening import open_model_file
from comfy.weight_files.pace import current_pace

log = logging.getLogger(__name__)


class ModelFiles:
    """A context manager over the files *paths*. Used by the thread that loads.

    An interrupt ends a read, in the background what its pace says. With the RAM model cache on, reads leave no second copy in the
    system's page cache.
    """

    def __init__(self, *paths: str) -> None:
        self.paths: Sequence[str] = paths
        self._stack = ExitStack()
        self._sources: list[WeightSource] | None = None

    def __enter__(self) -> "ModelFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def sources(self) -> list[WeightSource]:
        """The tensors of each file, which the first call opens. Raises what :func:`open_model_file` and :func:`plain_weights` raise."""
        if self._sources is None:
            drop_pages = comfy.model_management.ram_cache().enabled
            pace = current_pace.get()
            check = interrupt_flag.raise_if_set if pace is None else pace.check
            opened = [open_model_file(path, drop_pages, between_chunks=check) for path in self.paths]
            self._sources = [self._opened(self._stack.enter_context(one)) for one in opened]
        return self._sources

    @staticmethod
    def _opened(source: WeightSource) -> WeightSource:
        """*source* with quantised weights as what they mean, which is said once here."""
        plain = plain_weights(source)
        if isinstance(plain, QuantisedSource):
            formats = ", ".join(f"{count} {name}" for name, count in sorted(plain.formats().items()))
            if formats:
                log.info("%s: weights that stay quantised: %s", source.name, formats)
            if plain.multiplied_count():
                how = "" if kitchen.is_installed() else f"; to keep the file's precision: {kitchen.INSTALL}"
                log.info("%s: %d quantised weights are multiplied out as they are read%s", source.name, plain.multiplied_count(), how)
        return plain

    def source(self) -> WeightSource:
        """The tensors of the first file."""
        return self.sources()[0]

    def read_bytes(self) -> int | None:
        """Bytes read so far, opening nothing; None where that is not known."""
        counts = [source.read_bytes for source in self._sources or ()]
        return sum(count or 0 for count in counts) if any(count is not None for count in counts) or not counts else None
