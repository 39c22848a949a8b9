"""The classic mode: results stay for the next prompt, those of an expansion with the node that was expanded."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from comfy_execution.local_caches.contract import BasicCache, KeyClass
from comfy_execution.local_caches.keys import CacheKeySet
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt


class HierarchicalCache(BasicCache):
    """Keeps the last prompt's entries; the nodes of an expansion live in a part of their own, as long as the expanded node stays in the
    prompt. Finding a node's part costs the same however deep expansions are nested, and nothing recurses into parts."""

    def __init__(self, key_class: KeyClass, enable_providers: bool = False) -> None:
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
        """Drop entries without a node, and the parts of expansions whose node is gone."""
        super().clean_unused()
        if self.subcaches:
            used = set(self.cache_key_set.get_used_subcache_keys())
            for key in [key for key in self.subcaches if key not in used]:
                self._counters.evictions += self.subcaches.pop(key)._count()

    def get_local(self, node_id: str) -> Any:
        """The node's entry, wherever in the hierarchy it belongs, or None."""
        part = self._homes.get(node_id, self)
        if not part.initialized:
            return None
        key = part.cache_key_set.get_data_key(node_id)
        return None if key is None else part.cache.get(key)

    def set_local(self, node_id: str, value: Any) -> None:
        """Keep the node's entry where it belongs."""
        part = self._homes.get(node_id, self)
        key = part.cache_key_set.get_data_key(node_id)
        if key is not None:
            part.cache[key] = value

    async def ensure_subcache_for(self, node_id: str, children_ids: Collection[str]) -> BasicCache:
        """The part for the expansion of *node_id*, ready for *children_ids*; what an earlier expansion left and these do not use goes."""
        outer = self._homes.get(node_id, self)
        key = outer.cache_key_set.get_subcache_key(node_id)
        part = outer.subcaches.get(key)
        if part is None:
            part = outer.subcaches[key] = HierarchicalCache(self.key_class)
            part._counters = self._counters
        part.dynprompt = self.dynprompt
        part.cache_key_set = await self._new_keys(children_ids)
        part.cache_key_set.continue_from(self.cache_key_set)
        await part.cache_key_set.add_keys(children_ids)
        part.initialized = True
        self._homes |= dict.fromkeys(children_ids, part)
        part.clean_unused()
        return part

    def check(self) -> list[str]:
        """As in ``BasicCache``, for every part, and that each announced node is in a part that can be reached."""
        wrong = [problem for part in self._parts() for problem in BasicCache.check(part)]
        reached = {id(part) for part in self._parts()}
        lost = [node_id for node_id, part in self._homes.items() if id(part) not in reached]
        return wrong + ([f"{len(lost)} nodes belong to parts that were dropped"] if lost else [])

    def recursive_debug_dump(self) -> list[Any]:
        """The keys and entries, with each expansion's below its node."""
        dumped: list[Any] = []
        waiting: list[tuple[HierarchicalCache, list[Any]]] = [(self, dumped)]
        while waiting:
            cache, into = waiting.pop()
            into += BasicCache.recursive_debug_dump(cache)
            for key, part in cache.subcaches.items():
                below: list[Any] = []
                into.append({"subcache_key": repr(key), "subcache": below})
                waiting.append((part, below))
        return dumped

    def _keys_of(self, node_id: str) -> CacheKeySet:
        return self._homes.get(node_id, self).cache_key_set

    def _key_of(self, node_id: str) -> Any:
        return self._homes.get(node_id, self).cache_key_set.get_data_key(node_id)

    def _count(self) -> int:
        return sum(len(part.cache) for part in self._parts())

    def _parts(self) -> Iterator["HierarchicalCache"]:
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting += part.subcaches.values()
