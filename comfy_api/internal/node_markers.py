"""Marker base classes by which code can recognise V3 nodes of any version of the API."""

from typing import Any


class _ComfyNodeInternal:
    """Every V3 node class of every version derives from this."""

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802 - the public name
        """The node's entry of ``/object_info``."""
        raise NotImplementedError(f"{cls.__name__} is not a node class")


class _NodeOutputInternal:
    """Every V3 node result of every version derives from this."""
