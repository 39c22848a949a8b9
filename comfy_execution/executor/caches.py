"""The caches of one executor: results of nodes, by the chosen mode, and node instances."""

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from comfy_execution.local_caches.contract import BasicCache, NullCache
from comfy_execution.local_caches.generations import LRUCache, RAMPressureCache
from comfy_execution.local_caches.hierarchical import HierarchicalCache
from comfy_execution.local_caches.keys import CacheKeySetID, CacheKeySetInputSignature
from comfy_execution.prompt_files.file_state import State
from comfy_execution.prompt_files.prompt_files import FoundFile
from comfy_execution.units import GIB

DEFAULT_RAM_HEADROOM_GB = 16.0
# Asking the system costs about 50 µs, as much as a pass-through node.
RAM_CHECK_INTERVAL_S = 0.05
# Of how many nodes it is remembered which files they were called with, and of how many files each.
MAX_INSTANCES, MAX_INSTANCE_FILES = 10_000, 256


class CacheType(Enum):
    """How long results are kept: for the next prompt, for the most recently used nodes, not at all, or while RAM lasts."""

    CLASSIC = 0
    LRU = 1
    NONE = 2
    RAM_PRESSURE = 3


class CacheEntry(NamedTuple):
    """A node's result: *ui* as ``{"output": …, "meta": …}`` or None, and a list of values per output."""

    ui: dict | None
    outputs: list


class CacheSet:
    """``outputs`` and ``objects`` (node instances). Used by the coroutine that runs a prompt, and between prompts by its owner."""

    def __init__(
        self, cache_type: CacheType | None = None, cache_args: Mapping[str, Any] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*cache_args*: ``lru`` (entries kept beyond the last prompt's), ``ram`` (GB to keep free)."""
        sizes = cache_args or {}
        self.cache_type = cache_type or CacheType.CLASSIC
        self.outputs = self._make_outputs(sizes)
        self.objects: BasicCache = NullCache() if cache_type is CacheType.NONE else HierarchicalCache(CacheKeySetID)
        self.all = [self.outputs, self.objects]
        self._instance_files: dict[tuple[str, str], dict[str, State | None]] = {}
        self._headroom_bytes = int((sizes.get("ram") or DEFAULT_RAM_HEADROOM_GB) * GIB)
        self._clock = clock
        self._next_check_s = clock()

    def _make_outputs(self, sizes: Mapping[str, Any]) -> BasicCache:
        if self.cache_type is CacheType.NONE:
            return NullCache()
        if self.cache_type is CacheType.LRU:
            return LRUCache(CacheKeySetInputSignature, max_size=sizes.get("lru", 0), enable_providers=True)
        if self.cache_type is CacheType.RAM_PRESSURE:
            return RAMPressureCache(CacheKeySetInputSignature, enable_providers=True)
        return HierarchicalCache(CacheKeySetInputSignature, enable_providers=True)

    def relieve_ram(self) -> None:
        """Between two nodes: let results go if RAM is short and the mode says so. Looks every ``RAM_CHECK_INTERVAL_S`` at most."""
        if self.cache_type is CacheType.RAM_PRESSURE and self._clock() >= self._next_check_s:
            self.outputs.relieve(self._headroom_bytes)
            self._next_check_s = self._clock() + RAM_CHECK_INTERVAL_S

    def knows_old_files(self, node_id: str, class_type: str, files: Iterable[FoundFile]) -> bool:
        """Whether the instance for the node may remember what one of *files*, which it is called with now, held before it changed."""
        known = self._instance_files.pop((node_id, class_type), {})
        now = {file.path: file.state for file in files}
        is_old = any(known.get(path, state) != state for path, state in now.items()) or len(known) > MAX_INSTANCE_FILES
        if now or known:
            self._instance_files[node_id, class_type] = now if is_old else {**known, **now}
        while len(self._instance_files) > MAX_INSTANCES:
            del self._instance_files[next(iter(self._instance_files))]
        return is_old

    def recursive_debug_dump(self) -> dict:
        """What the caches hold, for people."""
        return {"outputs": self.outputs.recursive_debug_dump()}
