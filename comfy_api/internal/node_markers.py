"""Marker base classes that identify V3 nodes of every version of the API."""

from typing import Any

from comfy_execution.nodes_graph.schema_class import SchemaNode


class _ComfyNodeInternal(SchemaNode):
    """The base of every V3 node class in every version."""

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802 - the public name
        """The node's entry of ``/object_info``."""
        raise NotImplementedError(f"{cls.__name__} is not a node class")


class _NodeOutputInternal:
    """The base of every V3 node result in every version."""
