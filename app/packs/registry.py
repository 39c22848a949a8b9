"""The four tables that node packs fill: node classes, display names, web folders and pack folders."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


class PackContentError(Exception):
    """What a pack offers cannot be registered; the text names the pack's mistake."""


@dataclass(frozen=True, slots=True)
class RegistrySnapshot:
    """A copy of the four tables, taken before a pack is imported."""

    tables: tuple[dict[str, Any], ...]


class PackRegistry:
    """Writes into the tables that ``nodes`` publishes. Not thread-safe: packs are loaded one after the other, before serving.

    The dictionaries are the caller's and keep their identity, because packs hold on to ``nodes.NODE_CLASS_MAPPINGS`` and the rest.
    """

    def __init__(
        self, node_classes: dict[str, type], display_names: dict[str, str], web_dirs: dict[str, str], module_dirs: dict[str, str]
    ) -> None:
        self.node_classes = node_classes
        self.display_names = display_names
        self.web_dirs = web_dirs
        self.module_dirs = module_dirs

    def snapshot(self) -> RegistrySnapshot:
        """Remember the tables as they are now."""
        return RegistrySnapshot(tuple(dict(table) for table in self._tables()))

    def restore(self, snapshot: RegistrySnapshot) -> None:
        """Put the tables back, so that a pack that failed half-way leaves nothing behind."""
        for table, saved in zip(self._tables(), snapshot.tables, strict=True):
            table.clear()
            table.update(saved)

    def _tables(self) -> tuple[dict[str, Any], ...]:
        return self.node_classes, self.display_names, self.web_dirs, self.module_dirs

    def register_mapping(self, mapping: object, display_names: object, python_module: str, protected: Collection[str] = ()) -> list[str]:
        """Add a V1 pack's classes and titles; names in *protected* (the built-in ones) are left alone.

        Args: *mapping* and *display_names* are the pack's ``NODE_CLASS_MAPPINGS`` and ``NODE_DISPLAY_NAME_MAPPINGS`` (or None).
        Returns a sentence for each entry that was refused; the other entries are in place.
        Raises ``PackContentError`` when *mapping* is not a mapping.
        """
        if not isinstance(mapping, Mapping):
            raise PackContentError(f"NODE_CLASS_MAPPINGS must be a dict of name to class, not {type(mapping).__name__}")
        problems = []
        for name, node_class in mapping.items():
            problem = _entry_problem(name, node_class)
            if problem is None and name not in protected:
                problem = _set_python_module(name, node_class, python_module)
                if problem is None:
                    self.node_classes[name] = node_class
            if problem is not None:
                problems.append(problem)
        if isinstance(display_names, Mapping):
            self.display_names.update({name: title for name, title in display_names.items() if name not in protected})
        elif display_names is not None:
            problems.append(f"NODE_DISPLAY_NAME_MAPPINGS must be a dict, not {type(display_names).__name__}; titles are left out")
        return problems

    def register_schemas(self, node_list: Iterable[Any], python_module: str, protected: Collection[str] = ()) -> list[str]:
        """Add the classes of an extension under the ids of their schemas, V3 classes and older ones that packs gave a ``GET_SCHEMA``.

        Returns a sentence for each class that was refused, with its reason.
        """
        problems = []
        for node_class in node_list:
            if not isinstance(node_class, type) or not hasattr(node_class, "GET_SCHEMA"):
                problems.append(f"get_node_list() returned {node_class!r}, which is not an io.ComfyNode class")
                continue
            try:
                schema = node_class.GET_SCHEMA()
            except (Exception, SystemExit) as error:
                log.warning("The schema of node class %s is not valid", node_class.__qualname__, exc_info=True)
                problems.append(f"the schema of {node_class.__qualname__} is not valid: {error}")
                continue
            if schema.node_id in protected:
                continue
            problem = _set_python_module(schema.node_id, node_class, python_module)
            if problem is not None:
                problems.append(problem)
                continue
            self.node_classes[schema.node_id] = node_class
            if schema.display_name is not None:
                self.display_names[schema.node_id] = schema.display_name
        return problems


def _entry_problem(name: object, node_class: object) -> str | None:
    """Why this entry of ``NODE_CLASS_MAPPINGS`` cannot be a node, or None."""
    if not isinstance(name, str):
        return f"the node name {name!r} is not a string"
    if not isinstance(node_class, type):
        return f"{name!r} is mapped to {node_class!r}, which is not a class"
    if not callable(getattr(node_class, "INPUT_TYPES", None)):
        return f"{name!r}: class {node_class.__qualname__} has no INPUT_TYPES method"
    return None


def _set_python_module(name: str, node_class: type, python_module: str) -> str | None:
    try:
        node_class.RELATIVE_PYTHON_MODULE = python_module  # type: ignore[attr-defined]
    except (AttributeError, TypeError) as error:
        return f"{name!r}: class {node_class.__qualname__} does not accept RELATIVE_PYTHON_MODULE: {error}"
    return None
