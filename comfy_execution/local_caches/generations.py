"""Caches that keep results over several prompts: the most recently used ones, or as many as RAM has room for.

Each prompt is a generation, and an entry belongs to the last generation that used it.
"""

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import psutil

from comfy_execution.local_caches.contract import BasicCache, KeyClass
from comfy_execution.local_caches.result_size import host_bytes
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.signatures import Uncacheable
from comfy_execution.units import GIB

SMALL_ENTRY_BYTES = 4096


class LRUCache(BasicCache):
    """Keeps the running prompt's entries and up to *max_size* entries in all, those of the prompts used longest ago going first.

    One flat cache: an expansion's entries are used whenever the expanded node's is. Results that cannot be found again (their key
    equals nothing) go with their prompt.
    """

    def __init__(self, key_class: KeyClass, max_size: int = 100, enable_providers: bool = False) -> None:
        super().__init__(key_class, enable_providers)
        self.max_size = max_size
        self.generation = 0
        self.used_generation: dict[Any, int] = {}
        self.children: dict[Any, list[Any]] = {}
        self._by_generation: dict[int, dict[Any, None]] = {}
        self._never_found_again: dict[Any, None] = {}

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Serve *dynprompt*: a new generation, to which its nodes' entries belong."""
        await super().set_prompt(dynprompt, node_ids, is_changed_cache)
        self.generation += 1
        self._drop(list(self._never_found_again))
        self.children = {key: children for key, children in self.children.items() if key in self.cache}
        for key in self.cache_key_set.get_used_keys():
            self._touch(key)

    def clean_unused(self) -> None:
        """Drop whole generations, oldest first, while more than ``max_size`` entries are kept; never the running prompt's."""
        for generation in sorted(self._by_generation) if len(self.cache) > self.max_size else ():
            if len(self.cache) <= self.max_size or generation >= self.generation:
                break
            self._drop(list(self._by_generation[generation]))

    def get_local(self, node_id: str) -> Any:
        """The node's entry, which counts as a use, or None."""
        entry = super().get_local(node_id)
        if entry is not None:
            self._touch(self._key_of(node_id))
        return entry

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry."""
        super().set_local(node_id, value)
        key = self._key_of(node_id)
        if key is None:
            return
        if isinstance(key, Uncacheable):
            self._never_found_again[key] = None
        self._touch(key)

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """This cache; the children are used whenever their node is."""
        await super().ensure_subcache_for(node_id, children_ids)
        children = [self._key_of(child) for child in children_ids]
        self.children[self._key_of(node_id)] = children
        for key in children:
            self._touch(key)
        return self

    def check(self) -> list[str]:
        """As in ``BasicCache``, and that every entry belongs to exactly one generation, none from the future."""
        wrong = super().check()
        listed = [(key, generation) for generation, keys in self._by_generation.items() for key in keys]
        if len(listed) != len(self.cache) or dict(listed) != self.used_generation or self.used_generation.keys() != self.cache.keys():
            wrong.append("the entries and the generations they belong to do not agree")
        if any(generation > self.generation for generation in self._by_generation):
            wrong.append("an entry belongs to a prompt that has not begun")
        return wrong

    def _touch(self, key: Any) -> None:
        """Let an entry, and those of the node's expansion, belong to the running prompt."""
        waiting = [key]
        while waiting:
            current = waiting.pop()
            used = self.used_generation.get(current)
            if current not in self.cache or (used == self.generation):
                continue
            if used is not None:
                self._leave_generation(current, used)
            self.used_generation[current] = self.generation
            self._by_generation.setdefault(self.generation, {})[current] = None
            waiting += self.children.get(current, ())

    def _leave_generation(self, key: Any, generation: int) -> None:
        members = self._by_generation[generation]
        del members[key]
        if not members:
            del self._by_generation[generation]

    def _drop(self, keys: Iterable[Any]) -> None:
        keys = list(keys)
        super()._drop(keys)
        for key in keys:
            self._leave_generation(key, self.used_generation.pop(key))
            self.children.pop(key, None)
            self._never_found_again.pop(key, None)


def available_ram_bytes() -> int:
    """RAM that the system can hand out without swapping."""
    return psutil.virtual_memory().available


class RAMPressureCache(LRUCache):
    """Keeps every entry while RAM lasts; ``relieve`` then lets large and long unused ones go first, never the running prompt's."""

    def __init__(
        self,
        key_class: KeyClass,
        enable_providers: bool = False,
        *,
        available_bytes: Callable[[], int] = available_ram_bytes,
        size_bytes: Callable[[Any], int] = host_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*available_bytes* tells how much RAM is free, *size_bytes* how much an entry keeps in use."""
        super().__init__(key_class, 0, enable_providers)
        self._available_bytes = available_bytes
        self._size_bytes = size_bytes
        self._clock = clock
        self.timestamps: dict[Any, float] = {}

    def clean_unused(self) -> None:
        """Nothing goes before RAM is short."""

    def poll(self, **limits: Any) -> None:
        """``relieve`` with ``ram_headroom`` GB."""
        self.relieve(int(limits.get("ram_headroom", 0) * GIB))

    def relieve(self, headroom_bytes: int) -> int:
        """Let entries go until *headroom_bytes* are free or only the running prompt's are left; how many went.

        An entry's rank is its size times the number of prompts since its last use; among equals the one used longest ago goes first.
        """
        missing_bytes = headroom_bytes - self._available_bytes()
        if missing_bytes <= 0:
            return 0
        old = [key for key, generation in self.used_generation.items() if generation < self.generation]
        sizes = {key: SMALL_ENTRY_BYTES + self._size_bytes(self.cache[key]) for key in old}
        old.sort(key=lambda key: (sizes[key] * (self.generation - self.used_generation[key]), -self.timestamps[key]))
        gone = 0
        while old and missing_bytes > 0:
            # Asking the system costs as much as dropping hundreds of entries, so ask when the entries dropped should do.
            while old and missing_bytes > 0:
                key = old.pop()
                missing_bytes -= sizes[key]
                self._drop([key])
                gone += 1
            missing_bytes = headroom_bytes - self._available_bytes()
        return gone

    def get_local(self, node_id: str) -> Any:
        """The node's entry, which counts as a use, or None."""
        entry = super().get_local(node_id)
        if entry is not None:
            self.timestamps[self._key_of(node_id)] = self._clock()
        return entry

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry."""
        super().set_local(node_id, value)
        key = self._key_of(node_id)
        if key is not None:
            self.timestamps[key] = self._clock()

    def _drop(self, keys: Iterable[Any]) -> None:
        keys = list(keys)
        super()._drop(keys)
        for key in keys:
            self.timestamps.pop(key, None)
