"""What every cache of node results within this process does; the modes differ in what they keep.

A cache serves one prompt at a time: ``set_prompt`` gives it the prompt, ``clean_unused`` drops what the mode does not keep, then entries
are read and written by node id. All methods are called from the coroutine that runs the prompt, and none blocks.
"""

from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_execution.local_caches.keys import CacheKeySet, CacheKeySetID, FileBoundKey, FilesOfPrompt
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.signatures import Uncacheable

KeyClass = Callable[[DynamicPrompt, Iterable[str], Any], CacheKeySet]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How much a cache holds, and what it did since it was made. *external_hits* of the *hits* came from outside this process."""

    entries: int
    hits: int
    misses: int
    evictions: int
    external_hits: int = 0


@dataclass(slots=True)
class Counters:
    """The running totals of a cache and all its parts."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    external_hits: int = 0


class ExternalCache(Protocol):
    """Where results go that other processes may use. No method raises. Asked for nodes with a signature only."""

    missing: Set[str]
    """The nodes that were asked for in this prompt and that nobody has: asking again would be in vain."""

    async def prefetch(self, targets: Iterable[str]) -> None:
        """Fetch into the cache what the results of *targets* need and others have."""

    async def lookup(self, node_id: str, key: Any) -> Any:
        """The entry stored under *key*, or None."""

    async def store(self, node_id: str, key: Any, value: Any) -> None:
        """Take *value* to be stored under *key*; does not wait for it."""


class BasicCache:
    """Keeps every entry under its key until ``clean_unused`` finds the key in no node of the prompt."""

    def __init__(self, key_class: KeyClass, enable_providers: bool = False) -> None:
        """*enable_providers*: results not found here may come from, and go to, ``external`` when that is set.

        ``files``, set before ``set_prompt``, lets keys cover the files that nodes name.
        """
        self.key_class = key_class
        self.enable_providers = enable_providers
        self.external: ExternalCache | None = None
        self.files: FilesOfPrompt | None = None
        self.initialized = False
        self.cache: dict[Any, Any] = {}
        self.dynprompt: DynamicPrompt
        self.cache_key_set: CacheKeySet
        self.is_changed_cache: Any = None
        self._counters = Counters()

    async def set_prompt(self, dynprompt: DynamicPrompt, node_ids: Iterable[str], is_changed_cache: Any) -> None:
        """Serve *dynprompt* from now on and work out the keys of *node_ids*. *is_changed_cache* has ``async get(node_id)``."""
        self.dynprompt = dynprompt
        self.is_changed_cache = is_changed_cache
        self.cache_key_set = await self._new_keys(node_ids)
        await self.cache_key_set.add_keys(node_ids)
        self.initialized = True

    def all_node_ids(self) -> set[str]:
        """The nodes this cache has keys for."""
        return self.cache_key_set.all_node_ids()

    def clean_unused(self) -> None:
        """Drop the entries whose key no node of the prompt has."""
        if self.cache:
            used = set(self.cache_key_set.get_used_keys())
            self._drop([key for key in self.cache if key not in used])

    async def get(self, node_id: str) -> Any:
        """The node's entry from here or, on a miss, from ``external``, which then stays here; or None."""
        entry = self.get_local(node_id)
        if entry is None and self.external is not None and node_id not in self.external.missing:
            entry = await self._get_external(node_id)
        if entry is None:
            self._counters.misses += 1
        else:
            self._counters.hits += 1
        return entry

    async def set(self, node_id: str, value: Any) -> None:
        """Keep the node's entry, here and in ``external``; only for this prompt when a file it was made from changed meanwhile."""
        if self.files is not None and not self.files.hold(node_id):
            self._keys_of(node_id).make_unique(node_id, "a file changed while the prompt ran")
        self.set_local(node_id, value)
        if self.external is not None and (key := self.external_key(node_id)) is not None:
            await self.external.store(node_id, key, value)

    def get_local(self, node_id: str) -> Any:
        """The node's entry if this process has it, or None."""
        if not self.initialized:
            return None
        key = self._key_of(node_id)
        return None if key is None else self.cache.get(key)

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry in this process only; that of a node without a key is not kept."""
        key = self._key_of(node_id)
        if key is not None:
            self.cache[key] = value

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> "BasicCache":
        """Get ready for the nodes *children_ids* that the expansion of *node_id* made; the cache that will hold them."""
        if self.files is not None:
            await self.files.survey(children_ids)
        await self.cache_key_set.add_keys(children_ids)
        return self

    def poll(self, **limits: Any) -> None:
        """A moment between nodes at which a mode may let entries go; ``ram_headroom`` is in GB."""

    def relieve(self, headroom_bytes: int) -> int:
        """Let entries go while less than *headroom_bytes* of RAM are free, if the mode does that; how many went."""
        return 0

    def stats(self) -> CacheStats:
        """Counters since the cache was made."""
        counters = self._counters
        return CacheStats(self._count(), counters.hits, counters.misses, counters.evictions, counters.external_hits)

    def check(self) -> list[str]:
        """Invariants that do not hold; an empty list when all is well."""
        return [] if None not in self.cache else ["an entry is kept under no key"]

    def recursive_debug_dump(self) -> list[Any]:
        """The keys and entries, for people."""
        return [{"key": repr(key), "value": repr(value)[:200]} for key, value in self.cache.items()]

    async def _new_keys(self, node_ids: Iterable[str]) -> CacheKeySet:
        """Keys for the nodes of ``dynprompt``; the files that *node_ids* name are looked at before nodes are asked what changed."""
        keys = self.key_class(self.dynprompt, node_ids, self.is_changed_cache)
        keys.files = self.files
        if self.files is not None:
            await self.files.survey(node_ids)
        return keys

    def _keys_of(self, node_id: str) -> CacheKeySet:
        return self.cache_key_set

    def _key_of(self, node_id: str) -> Any:
        return self._keys_of(node_id).get_data_key(node_id)

    async def _get_external(self, node_id: str) -> Any:
        key = None if self.external is None else self.external_key(node_id)
        if key is None or self.external is None:
            return None
        entry = await self.external.lookup(node_id, key)
        if entry is not None:
            self._counters.external_hits += 1
            self.set_local(node_id, entry)
        return entry

    def external_key(self, node_id: str) -> Any:
        """The signature under which the node's result can be known outside this process; None when it has none."""
        if not self.enable_providers or not self.initialized:
            return None
        key = self._key_of(node_id)
        if type(key) is str:
            return key
        if isinstance(key, Uncacheable):
            return None
        return key.signature if isinstance(key, FileBoundKey) else key

    def accept_external(self, node_id: str, entry: Any) -> None:
        """Keep an entry that came from outside this process; counts as a hit."""
        self._counters.hits += 1
        self._counters.external_hits += 1
        self.set_local(node_id, entry)

    def _count(self) -> int:
        return len(self.cache)

    def _drop(self, keys: Iterable[Any]) -> None:
        for key in keys:
            del self.cache[key]
            self._counters.evictions += 1


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

    def set_local(self, node_id: str, value: Any) -> None:
        """Nothing is kept."""

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """This cache, which keeps nothing."""
        return self
