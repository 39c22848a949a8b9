"""Lets models go at the right moment: never while the owner loops over its loaded models. Portable: standard library only."""

from __future__ import annotations

import gc
import logging
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from comfy.ram_model_cache.models import LoadedModel
from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.storage import patcher_of
from comfy.ram_model_cache.values import Entry, OwnerHooks

log = logging.getLogger(__name__)


class DropQueue:
    """DOOMED entries, and the owner's critical sections, which hold up their end.

    Lock order: the cache's lock, then this one; nothing is called under it. :meth:`flush` drops, outside both.
    """

    def __init__(self, hooks: OwnerHooks) -> None:
        self._hooks = hooks
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[Entry] = []
        self._open_sections = 0
        self._loads = 0
        self._spare_due = False
        self._droppers: dict[int, int] = {}

    def add(self, entry: Entry) -> None:
        """Leave *entry* to the next :meth:`flush`; drops nothing."""
        with self._changed:
            self._waiting.append(entry)

    def note_detached(self, loaded_model: LoadedModel) -> None:
        """The owner took *loaded_model* off its list itself: do not have it forgotten again."""
        with self._changed:
            for entry in self._waiting:
                entry.loaded.pop(id(loaded_model), None)

    def waiting_bytes(self) -> int:
        """Bytes that will be free once the queue is flushed."""
        with self._changed:
            return sum(entry.size_bytes for entry in self._waiting)

    @contextmanager
    def critical_section(self) -> Iterator[None]:
        """Drop nothing while one of these is open; waits for a drop in progress in another thread. May be nested."""
        me = threading.get_ident()
        with self._changed:
            while any(thread != me for thread in self._droppers):
                self._changed.wait()
            self._open_sections += 1
        try:
            yield
        finally:
            with self._changed:
                self._open_sections -= 1
            self.flush()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Leave the memory of what is dropped to the load that runs meanwhile; what it does not use goes back to the system at its end."""
        with self._changed:
            self._loads += 1
        try:
            yield
        finally:
            with self._changed:
                self._loads -= 1
            self._release_spare()

    def flush(self) -> None:
        """Drop what waits, unless a critical section is open: then its end does."""
        me = threading.get_ident()
        with self._changed:
            if self._open_sections or not self._waiting:
                return
            doomed, self._waiting = self._waiting, []
            self._droppers[me] = self._droppers.get(me, 0) + 1
        try:
            self._drop(doomed)
        finally:
            with self._changed:
                self._droppers[me] -= 1
                if not self._droppers[me]:
                    del self._droppers[me]
                self._changed.notify_all()

    def _drop(self, doomed: list[Entry]) -> None:
        """Have the owner forget what it loaded of *doomed*, each once, let the weights go, and give their memory back."""
        modules = []
        for entry in doomed:
            modules.append(_weakly(getattr(patcher_of(entry.value), "model", None)))
            for reference in entry.loaded.values():
                self._forget(reference)
            entry.loaded.clear()
            entry.value = None
            entry.become(State.ABSENT)
        if any(module is not None and module() is not None for module in modules):
            gc.collect()
        self._hooks.trim()
        with self._changed:
            self._spare_due = True
        self._release_spare()

    def _release_spare(self) -> None:
        with self._changed:
            if self._loads or not self._spare_due:
                return
            self._spare_due = False
        self._hooks.release_spare()

    def _forget(self, reference: weakref.ref[LoadedModel]) -> None:
        loaded_model = reference()
        if loaded_model is None:
            return
        try:
            self._hooks.forget_loaded(loaded_model)
        except Exception:
            # As text: a record that kept the exception would keep its frames, and with them the model.
            log.error("RAM model cache: the server could not forget a loaded model that is evicted\n%s", traceback.format_exc())


def _weakly(module: object) -> weakref.ref[object] | None:
    try:
        return weakref.ref(module)
    except TypeError:
        return None
