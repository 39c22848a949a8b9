"""The files of one load: opened when the first part of them is read, closed once."""

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import comfy.model_management
from comfy.families.quantised_weights import QuantisedSource, plain_weights
from comfy.families.weight_source import WeightSource
from comfy.interruption import interrupt_flag
from comfy.loading.stored_source import Shelf, StoredSource
from comfy.quantisation import kitchen
from comfy.ram_model_store.part_format import SourceFacts
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
        self._stored: list[StoredSource] = []
        self.shelf: Shelf | None = None  # set by who loads with a store of weights

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
            openers = [
                functools.partial(self._stack.enter_context, open_model_file(path, drop_pages, between_chunks=check)) for path in self.paths
            ]
            self._sources = [self._opened(self._source(number, opener)) for number, opener in enumerate(openers)]
        return self._sources

    def _source(self, number: int, open_file: Callable[[], WeightSource]) -> WeightSource:
        if self.shelf is None:
            return open_file()
        self._stored.append(StoredSource(self.paths[number], number, self.shelf, open_file))
        return self._stored[-1]

    def stored_facts(self) -> list[SourceFacts] | None:
        """What a stored part says of the files; None where it cannot say all of one."""
        found = [source.facts for source in self._stored]
        facts = [one for one in found if one is not None]
        return facts if len(facts) == len(found) else None

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

    def multiplies(self) -> bool:
        """Whether weights are multiplied out as they are read."""
        return any(isinstance(source, QuantisedSource) and source.multiplied_count() for source in self._sources or ())

    def read_bytes(self) -> int | None:
        """Bytes read so far, opening nothing; None where that is not known."""
        counts = [source.read_bytes for source in self._sources or ()]
        return sum(count or 0 for count in counts) if any(count is not None for count in counts) or not counts else None
