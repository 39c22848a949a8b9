"""Caches of node results within this process, under the names that others import. Every mode answers to one contract suite."""

from comfy_execution.cache_keys import (
    CacheKeySet,
    CacheKeySetID,
    CacheKeySetInputSignature,
    Unhashable,
    include_unique_id_in_input,
    to_hashable,
)
from comfy_execution.generation_caches import LRUCache, RAMPressureCache
from comfy_execution.hierarchical_cache import HierarchicalCache
from comfy_execution.local_cache import BasicCache, CacheStats, ExternalCache, NullCache

__all__ = [
    "BasicCache",
    "CacheKeySet",
    "CacheKeySetID",
    "CacheKeySetInputSignature",
    "CacheStats",
    "ExternalCache",
    "HierarchicalCache",
    "LRUCache",
    "NullCache",
    "RAMPressureCache",
    "Unhashable",
    "include_unique_id_in_input",
    "to_hashable",
]
