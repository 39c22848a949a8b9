"""How classes of the newer node API (V3) are told from older ones: by their base class, whatever attributes a pack's class may have."""

from typing import Any


class SchemaNode:
    """The base of every V3 class; ``comfy_api`` derives its own from it."""


def is_schema_class(class_def: Any) -> bool:
    """Whether this is a V3 class: one that describes itself by a schema."""
    return isinstance(class_def, type) and issubclass(class_def, SchemaNode)
