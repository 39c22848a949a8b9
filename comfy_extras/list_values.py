"""Lists that nodes hand on: as many values of one output, or as one value that is a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.registered_classes import node_class


def items_of(dynprompt: Any, link: Any, received: Sequence[Any]) -> list[Any]:
    """The items that a node got through *link* (or as a constant): *received*, or what the one list in it holds.

    Outputs that are declared as lists hand their items on one by one; a list in such an item is an item.
    """
    if len(received) != 1 or not isinstance(received[0], list):
        return list(received)
    return list(received if is_link(link) and _gives_a_list(dynprompt, link) else received[0])


def _gives_a_list(dynprompt: Any, link: Any) -> bool:
    flags = getattr(node_class(dynprompt.get_node(link[0])["class_type"]), "OUTPUT_IS_LIST", None) or ()
    return link[1] < len(flags) and bool(flags[link[1]])
