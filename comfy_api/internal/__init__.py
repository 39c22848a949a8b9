"""The parts that the versions of the API are built from; not meant for node packs."""

from .api_registry import ComfyAPIBase, ComfyAPIWithVersion, get_all_versions, register_versions
from .class_tools import classproperty, first_real_override, is_class, lock_class, prune_dict
from .node_markers import _ComfyNodeInternal, _NodeOutputInternal
from .singleton import ProxiedSingleton

__all__ = [
    "ComfyAPIBase", "ComfyAPIWithVersion", "ProxiedSingleton", "_ComfyNodeInternal", "_NodeOutputInternal", "classproperty",
    "first_real_override", "get_all_versions", "is_class", "lock_class", "prune_dict", "register_versions",
]  # fmt: skip
