"""Which models the nodes that are still to run will use, as far as they are there."""

from collections.abc import Sequence
from typing import Any

from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.execution_list import ExecutionList
from comfy_execution.nodes_graph.registered_classes import node_class

MODEL = "MODEL"


def model_values(class_def: Any, outputs: Sequence[Any]) -> list[Any]:
    """The values of the sockets of type ``MODEL`` of a node of *class_def* that gave *outputs* (a list of values per socket)."""
    types = getattr(class_def, "RETURN_TYPES", ())
    return [value for kind, values in zip(types, outputs) if kind == MODEL and isinstance(values, list) for value in values]


def cached_models(nodes: ExecutionList, dynprompt: DynamicPrompt) -> list[Any]:
    """The models in cached results that waiting *nodes* will read, each once."""
    found: dict[int, Any] = {}
    entries = {from_id: entry for kept in nodes.execution_cache.values() for from_id, entry in kept.items() if entry is not None}
    for from_id, entry in entries.items():
        for value in model_values(node_class(dynprompt.get_node(from_id)["class_type"]), entry.outputs):
            found[id(value)] = value
    return list(found.values())
