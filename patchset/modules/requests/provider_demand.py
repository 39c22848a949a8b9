"""Which results are asked for in cache providers: those that the outputs need, and nothing above one that is found."""

import asyncio
from collections.abc import Iterable
from typing import Any

import nodes
from comfy_execution.cache_provider import _has_cache_providers
from comfy_execution.graph import get_input_info
from comfy_execution.graph_utils import is_link
from comfy_execution.provider_waves import walk_in_waves


async def fetch_needed(cache: Any, node_ids: Iterable[str]) -> None:
    """Get into *cache* what the results of *node_ids* need and providers have. What lazy inputs may want is not asked for.

    An output node is queued with all above it that is not in the cache, whether its own result is known or not. So what stands right
    above one is asked for with it.
    """
    if not (getattr(cache, "enable_providers", False) and _has_cache_providers()):
        return
    wanted = list(node_ids)
    above = [parent for node_id in wanted if _is_output(cache.dynprompt, node_id) for parent in _parents(cache.dynprompt, node_id)]

    def is_here(node_id: str) -> bool:
        return cache.get_local(node_id) is not None

    async def ask(wave: list[str]) -> set[str]:
        found = await asyncio.gather(*(cache.get(node_id) for node_id in wave))
        return {node_id for node_id, entry in zip(wave, found) if entry is not None}

    await walk_in_waves(
        dict.fromkeys([*wanted, *above]), lambda node_id: _parents(cache.dynprompt, node_id), is_here, cache.dynprompt.has_node, ask
    )


def _is_output(dynprompt: Any, node_id: str) -> bool:
    if not dynprompt.has_node(node_id):
        return False
    class_def: Any = nodes.NODE_CLASS_MAPPINGS[dynprompt.get_node(node_id)["class_type"]]
    return getattr(class_def, "OUTPUT_NODE", False) is True


def _parents(dynprompt: Any, node_id: str) -> list[str]:
    """The nodes whose results the node waits for."""
    if not dynprompt.has_node(node_id):
        return []
    node = dynprompt.get_node(node_id)
    class_def: Any = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
    declared = class_def.INPUT_TYPES()
    found = []
    for name, value in node["inputs"].items():
        if is_link(value):
            _, _, options = get_input_info(class_def, name, declared)
            if not (isinstance(options, dict) and options.get("lazy", False)):
                found.append(value[0])
    return found
