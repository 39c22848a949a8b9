"""One load per model at a time: whoever wants what another thread is loading waits for it. Portable: standard library only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager

WAIT_SLICE_S = 0.2


def start_daemon(run: Callable[[], None]) -> None:
    """Run *run* on a thread that ends with the process."""
    threading.Thread(target=run, name="ram-model-cache", daemon=True).start()


class Flights:
    """Which thread is loading which keys. Its lock is a leaf: nothing else is locked or called under it."""

    def __init__(self, raise_if_interrupted: Callable[[], None]) -> None:
        self._raise_if_interrupted = raise_if_interrupted
        self._changed = threading.Condition(threading.Lock())
        self._owners: dict[Hashable, tuple[int, int]] = {}
        self._awaited: Counter[Hashable] = Counter()

    @contextmanager
    def alone(self, keys: Collection[Hashable]) -> Iterator[None]:
        """Own *keys*, all at once, waiting until no other thread does; raises what the interrupt check raises while waiting.

        A thread that owns some already gets the rest without waiting: rather a second read than a deadlock.
        """
        if not self._take(keys, None):
            self._wait(keys)
        try:
            yield
        finally:
            self._give(keys)

    def _wait(self, keys: Collection[Hashable]) -> None:
        """Take *keys* as soon as they are free; others see meanwhile that somebody waits for them."""
        with self._changed:
            self._awaited.update(keys)
        try:
            while not self._take(keys, WAIT_SLICE_S):
                self._raise_if_interrupted()
        finally:
            with self._changed:
                self._awaited -= Counter(keys)

    def awaited(self, keys: Collection[Hashable]) -> bool:
        """Whether some thread waits for any of *keys*."""
        with self._changed:
            return any(key in self._awaited for key in keys)

    @contextmanager
    def if_free(self, *keys: Hashable) -> Iterator[bool]:
        """Own *keys* without waiting; yields whether that worked."""
        taken = self._take(keys, None)
        try:
            yield taken
        finally:
            if taken:
                self._give(keys)

    def busy(self) -> int:
        """How many keys are being loaded."""
        with self._changed:
            return len(self._owners)

    def _take(self, keys: Collection[Hashable], wait_s: float | None) -> bool:
        me = threading.get_ident()
        with self._changed:
            nested = any(owner == me for owner, _ in self._owners.values())
            if not nested and any(key in self._owners for key in keys):
                if wait_s is not None:
                    self._changed.wait(wait_s)
                return False
            for key in keys:
                owner, depth = self._owners.get(key, (me, 0))
                if owner == me:
                    self._owners[key] = (me, depth + 1)
            return True

    def _give(self, keys: Collection[Hashable]) -> None:
        me = threading.get_ident()
        with self._changed:
            for key in keys:
                owner, depth = self._owners.get(key, (0, 0))
                if owner == me and depth > 1:
                    self._owners[key] = (me, depth - 1)
                elif owner == me:
                    del self._owners[key]
            self._changed.notify_all()
