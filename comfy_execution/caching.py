"""Caches of node results within this process. Every mode answers to the same contract (``tests-unit/contracts``).

A cache serves one prompt at a time: ``set_prompt`` gives it the prompt, ``clean_unused`` drops what the mode does not keep, then entries
are read and written by node id. All methods are called from the coroutine that runs the prompt.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_execution.cache_keys import (
    CacheKeySet,
    CacheKeySetID,
    CacheKeySetInputSignature,
    Unhashable,
    include_unique_id_in_input,
    to_hashable,
)
from comfy_execution.cache_provider import _estimate_value_size
from comfy_execution.graph import DynamicPrompt

__all__ = [
    "BasicCache", "CacheKeySet", "CacheKeySetID", "CacheKeySetInputSignature", "CacheStats", "ExternalCache", "HierarchicalCache",
    "LRUCache", "NullCache", "RAMPressureCache", "Unhashable", "include_unique_id_in_input", "to_hashable",
]

SMALL_ENTRY_BYTES = 4096
AGE_FACTOR = 1.3


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How much a cache holds and what it did since it was made."""

    entries: int
    hits: int
    misses: int
    evictions: int


class ExternalCache(Protocol):
    """Where results go that other processes may use as well. Neither method raises."""

    async def lookup(self, node_id: str, class_type: str, key: Any) -> Any:
        """The entry stored under *key*, or None."""

    async def store(self, node_id: str, class_type: str, key: Any, value: Any) -> None:
        """Take *value* to be stored under *key*; does not wait for it."""


class BasicCache:
    """Keeps every entry under its key until ``clean_unused`` finds the key in no node of the prompt."""

    def __init__(self, key_class: type[CacheKeySet], enable_providers: bool = False) -> None:
        """*enable_providers*: results not found here may come from, and go to, ``external`` when that is set."""
        self.key_class = key_class
        self.enable_providers = enable_providers
        self.external: ExternalCache | None = None
        self.initialized = False
        self.cache: dict[Any, Any] = {}
        self.dynprompt: DynamicPrompt
        self.cache_key_set: CacheKeySet
        self._hits = self._misses = self._evictions = 0

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Serve *dynprompt* from now on and work out the keys of *node_ids*."""
        self.dynprompt = dynprompt
        self.is_changed_cache = is_changed_cache
        self.cache_key_set = self.key_class(dynprompt, node_ids, is_changed_cache)
        await self.cache_key_set.add_keys(node_ids)
        self.initialized = True

    def all_node_ids(self) -> set[str]:
        """The nodes this cache has keys for."""
        return self.cache_key_set.all_node_ids()

    def clean_unused(self) -> None:
        """Drop the entries that no node of the prompt has the key of."""
        used = set(self.cache_key_set.get_used_keys())
        self._drop([key for key in self.cache if key not in used])

    async def get(self, node_id: str) -> Any:
        """The node's entry from here or, on a miss, from ``external``, which then stays here; or None."""
        entry = self.get_local(node_id)
        if entry is not None:
            self._hits += 1
            return entry
        self._misses += 1
        external = self.external if self.enable_providers else None
        key = self.cache_key_set.get_data_key(node_id)
        if external is None or key is None:
            return None
        entry = await external.lookup(node_id, self.dynprompt.get_node(node_id)["class_type"], key)
        if entry is not None:
            self.set_local(node_id, entry)
        return entry

    async def set(self, node_id: str, value: Any) -> None:
        """Keep the node's entry, here and in ``external``."""
        self.set_local(node_id, value)
        external = self.external if self.enable_providers else None
        key = self.cache_key_set.get_data_key(node_id)
        if external is not None and key is not None:
            await external.store(node_id, self.dynprompt.get_node(node_id)["class_type"], key, value)

    def get_local(self, node_id: str) -> Any:
        """The node's entry if this process has it, or None."""
        if not self.initialized:
            return None
        key = self.cache_key_set.get_data_key(node_id)
        return None if key is None else self.cache.get(key)

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry in this process only."""
        key = self.cache_key_set.get_data_key(node_id)
        if key is not None:
            self.cache[key] = value

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> "BasicCache":
        """Get ready for the nodes *children_ids* that the expansion of *node_id* made; the cache that will hold them."""
        await self.cache_key_set.add_keys(children_ids)
        return self

    def relieve(self, headroom_bytes: int) -> int:
        """Let entries go while less than *headroom_bytes* of RAM are free, if the mode does that; how many went."""
        return 0

    def stats(self) -> CacheStats:
        """Counters since the cache was made."""
        return CacheStats(self._count(), self._hits, self._misses, self._evictions)

    def check(self) -> list[str]:
        """Invariants that do not hold; an empty list when all is well."""
        return [] if None not in self.cache else ["an entry is kept under no key"]

    def recursive_debug_dump(self) -> list[Any]:
        """The keys and entries, for people."""
        return [{"key": repr(key), "value": repr(value)[:200]} for key, value in self.cache.items()]

    def _count(self) -> int:
        return len(self.cache)

    def _drop(self, keys: Iterable[Any]) -> None:
        for key in keys:
            del self.cache[key]
            self._evictions += 1


class HierarchicalCache(BasicCache):
    """The classic mode: keeps the last prompt's entries; the nodes of an expansion live in a cache of their own, as long as the
    expanded node stays in the prompt."""

    def __init__(self, key_class: type[CacheKeySet], enable_providers: bool = False) -> None:
        super().__init__(key_class, enable_providers)
        self.subcaches: dict[Any, HierarchicalCache] = {}
        self._homes: dict[str, HierarchicalCache] = {}

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Serve *dynprompt*; expansions announce their nodes by ``ensure_subcache_for``."""
        self._homes = {}
        await super().set_prompt(dynprompt, node_ids, is_changed_cache)

    def all_node_ids(self) -> set[str]:
        """The nodes of the prompt and of every expansion so far."""
        return super().all_node_ids() | set(self._homes)

    def clean_unused(self) -> None:
        """Drop entries without a node, and the caches of expansions whose node is gone."""
        super().clean_unused()
        used = set(self.cache_key_set.get_used_subcache_keys())
        for key in [key for key in self.subcaches if key not in used]:
            self._evictions += self.subcaches.pop(key)._count()

    def get_local(self, node_id: str) -> Any:
        """The node's entry, wherever in the hierarchy it belongs, or None."""
        home = self._homes.get(node_id, self)
        return BasicCache.get_local(home, node_id)

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry where it belongs."""
        BasicCache.set_local(self._homes.get(node_id, self), node_id, value)

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """The cache of the expansion of *node_id*, ready for *children_ids*; what an earlier expansion left and these do not use goes."""
        outer = self._homes.get(node_id, self)
        key = outer.cache_key_set.get_subcache_key(node_id)
        subcache = outer.subcaches.get(key)
        if subcache is None:
            subcache = outer.subcaches[key] = HierarchicalCache(self.key_class, self.enable_providers)
        subcache.dynprompt = self.dynprompt
        subcache.cache_key_set = self.key_class(self.dynprompt, children_ids, self.is_changed_cache)
        subcache.cache_key_set.continue_from(self.cache_key_set)
        await subcache.cache_key_set.add_keys(children_ids)
        subcache.initialized = True
        self._homes |= dict.fromkeys(children_ids, subcache)
        subcache.clean_unused()
        return subcache

    async def get(self, node_id: str) -> Any:
        """As in ``BasicCache``; nodes of expansions take part."""
        home = self._homes.get(node_id, self)
        if home is not self:
            home.external = self.external
        return await BasicCache.get(home, node_id)

    async def set(self, node_id: str, value: Any) -> None:
        """As in ``BasicCache``; nodes of expansions take part."""
        home = self._homes.get(node_id, self)
        if home is not self:
            home.external = self.external
        await BasicCache.set(home, node_id, value)

    def stats(self) -> CacheStats:
        """Counters, the expansions' included."""
        parts = [super().stats(), *(subcache.stats() for subcache in self.subcaches.values())]
        return CacheStats(sum(part.entries for part in parts), sum(part.hits for part in parts),
                          sum(part.misses for part in parts), sum(part.evictions for part in parts))

    def recursive_debug_dump(self) -> list[Any]:
        """The keys and entries, with each expansion's below its node."""
        below = [{"subcache_key": repr(key), "entries": cache.recursive_debug_dump()} for key, cache in self.subcaches.items()]
        return super().recursive_debug_dump() + below

    def _count(self) -> int:
        return len(self.cache)


class NullCache(BasicCache):
    """Keeps nothing: every node runs in every prompt."""

    def __init__(self) -> None:
        super().__init__(CacheKeySetID)

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Nothing is worked out."""
        self.dynprompt = dynprompt

    def all_node_ids(self) -> set[str]:
        """None."""
        return set()

    def clean_unused(self) -> None:
        """Nothing is kept."""

    async def get(self, node_id: str) -> Any:
        """None."""
        self._misses += 1
        return None

    async def set(self, node_id: str, value: Any) -> None:
        """Nothing is kept."""

    def get_local(self, node_id: str) -> Any:
        """None."""
        return None

    def set_local(self, node_id: str, value: Any) -> None:
        """Nothing is kept."""

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """This cache, which keeps nothing."""
        return self


class LRUCache(BasicCache):
    """Keeps the running prompt's entries and up to *max_size* entries in all, those of the prompts used longest ago going first.

    One flat cache: an expansion's entries are kept as long as their node's.
    """

    def __init__(self, key_class: type[CacheKeySet], max_size: int = 100, enable_providers: bool = False) -> None:
        super().__init__(key_class, enable_providers)
        self.max_size = max_size
        self.generation = 0
        self.used_generation: dict[Any, int] = {}
        self.children: dict[Any, list[Any]] = {}

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Serve *dynprompt*: a new generation, to which its nodes' entries belong."""
        await super().set_prompt(dynprompt, node_ids, is_changed_cache)
        self.generation += 1
        for key in self.cache_key_set.get_used_keys():
            self._touch(key)

    def clean_unused(self) -> None:
        """Drop whole generations, oldest first, while more than ``max_size`` entries are kept; never the running prompt's."""
        excess = len(self.cache) - self.max_size
        if excess <= 0:
            return
        keys = list(self.cache)
        old = sorted((self._generation(key), index) for index, key in enumerate(keys) if self._generation(key) < self.generation)
        last = old[min(excess, len(old)) - 1][0] if old else -1
        self._drop([keys[index] for generation, index in old if generation <= last])

    def get_local(self, node_id: str) -> Any:
        """The node's entry, which counts as a use, or None."""
        entry = super().get_local(node_id)
        if entry is not None:
            self._touch(self.cache_key_set.get_data_key(node_id))
        return entry

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry."""
        super().set_local(node_id, value)
        key = self.cache_key_set.get_data_key(node_id)
        if key is not None:
            self._touch(key)

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """This cache; the children are used whenever their node is."""
        await super().ensure_subcache_for(node_id, children_ids)
        parent = self.cache_key_set.get_data_key(node_id)
        self.children[parent] = [self.cache_key_set.get_data_key(child) for child in children_ids]
        for key in self.children[parent]:
            self._touch(key)
        return self

    def check(self) -> list[str]:
        """As in ``BasicCache``, and that no use is remembered of what is not there."""
        stray = [key for key in self.used_generation if key not in self.cache and self.used_generation[key] < self.generation]
        return super().check() + ([f"{len(stray)} uses are remembered of entries that are gone"] if stray else [])

    def _generation(self, key: Any) -> int:
        return self.used_generation.get(key, -1)

    def _touch(self, key: Any) -> None:
        waiting = [key]
        while waiting:
            current = waiting.pop()
            if self.used_generation.get(current) == self.generation and current is not key:
                continue
            self.used_generation[current] = self.generation
            waiting += [child for child in self.children.get(current, ()) if self.used_generation.get(child) != self.generation]

    def _drop(self, keys: Iterable[Any]) -> None:
        super()._drop(keys)
        kept = {key: generation for key, generation in self.used_generation.items() if key in self.cache or generation == self.generation}
        self.used_generation = kept
        self.children = {key: children for key, children in self.children.items() if key in kept}


def available_ram_bytes() -> int:
    """RAM that the system can hand out without swapping."""
    import psutil

    return psutil.virtual_memory().available


class RAMPressureCache(LRUCache):
    """Keeps every entry while RAM lasts; ``relieve`` then lets go large and long unused ones first, never the running prompt's."""

    def __init__(self, key_class: type[CacheKeySet], enable_providers: bool = False,
                 available_bytes: Callable[[], int] = available_ram_bytes) -> None:
        super().__init__(key_class, 0, enable_providers)
        self._available_bytes = available_bytes

    def clean_unused(self) -> None:
        """Nothing goes before RAM is short."""

    def relieve(self, headroom_bytes: int) -> int:
        """Let entries go until *headroom_bytes* are free or only the running prompt's are left; how many went."""
        if self._available_bytes() >= headroom_bytes:
            return 0
        ranked = sorted((key for key in self.cache if self._generation(key) < self.generation), key=self._worth, reverse=True)
        gone = 0
        for key in ranked:
            self._drop([key])
            gone += 1
            if self._available_bytes() >= headroom_bytes:
                break
        return gone

    def _worth(self, key: Any) -> float:
        """How much letting *key* go helps: its size, grown with every prompt that did not use it."""
        size_bytes = SMALL_ENTRY_BYTES + _estimate_value_size(self.cache[key])
        return float(size_bytes) * AGE_FACTOR ** min(100, self.generation - self._generation(key))
