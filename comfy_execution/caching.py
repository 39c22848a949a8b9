"""Caches of node results within this process, under the names that others import. Every mode answers to one contract suite."""

from comfy_execution.local_caches.contract import BasicCache, CacheStats, ExternalCache, NullCache
from comfy_execution.local_caches.generations import LRUCache, RAMPressureCache
from comfy_execution.local_caches.hierarchical import HierarchicalCache
from comfy_execution.local_caches.keys import (
    CacheKeySet,
    CacheKeySetID,
    CacheKeySetInputSignature,
    Unhashable,
    include_unique_id_in_input,
    to_hashable,
)

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
