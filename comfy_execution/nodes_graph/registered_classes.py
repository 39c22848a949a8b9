"""The node classes of this process. The module that owns their table (``nodes``) provides it here; nothing below imports that module."""

from collections.abc import Callable, Mapping
from typing import Any

Classes = Callable[[], Mapping[str, type]]


class ClassSource:
    """Who is asked for the table of node classes. Set once, when ``nodes`` is imported; read by any thread."""

    def __init__(self) -> None:
        self._classes: Classes | None = None

    def provide(self, classes: Classes) -> Classes:
        """Ask *classes*, which is returned, from now on: at every look-up, as packs may replace the table or what is in it."""
        self._classes = classes
        return classes

    def table(self) -> Mapping[str, type]:
        """The classes by node type. Raises ``RuntimeError`` before anybody provided a table."""
        if self._classes is None:
            raise RuntimeError("there is no table of node classes yet: import the module `nodes`, which provides it, before using prompts")
        return self._classes()


class_source = ClassSource()


def registered_classes() -> Mapping[str, type]:
    """The node classes by type, as they are now."""
    return class_source.table()


def node_class(class_type: str) -> Any:
    """The class of a node type. Raises ``KeyError`` for one that no pack provides."""
    try:
        return class_source.table()[class_type]
    except KeyError:
        raise KeyError(f"there is no node type {class_type!r}; is the pack that provides it installed?") from None
