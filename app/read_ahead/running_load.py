"""One load ahead, on a thread of its own."""

import logging
import threading
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

from app.read_ahead.loads import Load, States
from comfy.interruption import InterruptProcessingException, interrupt_flag
from comfy.ram_model_cache.ahead import AheadBlock, NotAhead
from comfy.weight_files.pace import BackgroundPace, current_pace

log = logging.getLogger(__name__)


class Place(Enum):
    """Who will ask for a model: the running prompt, the next one, or somebody later."""

    RUNNING = 0
    NEXT = 1
    LATER = 2


class Outcome(Enum):
    """How a load ahead ended."""

    READ = "read"
    NOT_AHEAD = "not read ahead"
    STOPPED = "stopped"
    FAILED = "failed"


class RunningLoad:
    """Reads *load*, whose files are in *states*, into *cache*. :meth:`start` once; *ended* is called with this on its thread at the end."""

    def __init__(self, load: Load, states: States, place: Place, cache: Any, ended: Callable[["RunningLoad"], None]) -> None:
        self.load, self.states, self.outcome = load, states, Outcome.STOPPED
        self._place, self._cache, self._ended = place, cache, ended
        self._stopped = threading.Event()
        self._interrupts = interrupt_flag.requests
        self._block: AheadBlock | None = None

    def start(self) -> None:
        """Begin reading."""
        threading.Thread(target=self._run, name="read-ahead-load", daemon=True).start()

    def stop(self) -> None:
        """Have it end between two pieces of a read."""
        self._stopped.set()

    def asked_for(self) -> frozenset[Hashable]:
        """What the loader has asked the cache for so far."""
        return frozenset() if self._block is None else frozenset(self._block.keys)

    def _run(self) -> None:
        try:
            self.outcome = self._read()
        finally:
            self._ended(self)

    def _read(self) -> Outcome:
        ahead = self._cache.ahead
        try:
            with ahead.block(self._place is not Place.LATER, self._raise_if_stopped) as block:
                self._block = block
                beside = self._place is Place.RUNNING
                current_pace.set(BackgroundPace(self._raise_if_stopped, lambda: ahead.awaited(block), beside))
                self.load.run()
            self.load.settle()
        except NotAhead as reason:
            log.debug("%s is not read ahead: %s", self.load.name, reason)
            return Outcome.NOT_AHEAD
        except InterruptProcessingException:
            return Outcome.STOPPED
        except BaseException:
            # Whatever a damaged file or a pack may raise. Its loader will meet it again, and say so.
            log.debug("Reading %s ahead failed", self.load.name, exc_info=True)
            return Outcome.FAILED
        return Outcome.READ

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set() or interrupt_flag.requests != self._interrupts:
            raise InterruptProcessingException()
