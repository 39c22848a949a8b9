"""What node classes declare about their inputs, each class asked once for as long as a ``DeclaredInputs`` is in use."""

from collections.abc import Mapping
from typing import Any

from comfy_execution.nodes_graph.schema_class import is_schema_class

InputInfo = tuple[Any, str, dict[str, Any]] | tuple[None, None, None]

UNDECLARED: tuple[None, None, None] = (None, None, None)


def get_input_info(class_def: Any, input_name: str, valid_inputs: Mapping[str, Any] | None = None) -> InputInfo:
    """(type, section, options) of a declared input, or three Nones. *valid_inputs* stands for ``INPUT_TYPES()`` where it is known."""
    declared = class_def.INPUT_TYPES() if valid_inputs is None else valid_inputs
    for section in ("required", "optional", "hidden"):
        inputs = declared.get(section)
        if inputs is not None and input_name in inputs:  # an empty mapping may still claim every name
            spec = inputs[input_name]
            if isinstance(spec, str):
                return spec, section, {}
            options = spec[1] if len(spec) > 1 else {}
            return spec[0], section, options if isinstance(options, dict) else {}
    return UNDECLARED


class DeclaredInputs:
    """Declarations of node classes, for one prompt or one validation: ``INPUT_TYPES`` may read folders, and these change.

    Classes of the newer API also expand groups into the flat names (``group.name``) that a node's inputs use; that depends on the node,
    so only the node asked for last is remembered.
    """

    def __init__(self) -> None:
        self._by_class: dict[Any, Mapping[str, Any]] = {}
        self._node_inputs: Mapping[str, Any] | None = None
        self._node_class: Any = None
        self._node_declared: Mapping[str, Any] = {}

    def of_class(self, class_def: Any) -> Mapping[str, Any]:
        """``INPUT_TYPES()`` of a class, asked once. Raises what the class raises."""
        if class_def not in self._by_class:
            self._by_class[class_def] = class_def.INPUT_TYPES()
        return self._by_class[class_def]

    def of_node(self, class_def: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same for a node with these *inputs*, groups expanded where the class has any."""
        if not is_schema_class(class_def):
            return self.of_class(class_def)
        if self._node_inputs is not inputs or self._node_class is not class_def:
            self._node_declared = class_def.INPUT_TYPES(live_inputs=inputs)
            self._node_inputs, self._node_class = inputs, class_def
        return self._node_declared

    def find(self, class_def: Any, input_name: str, inputs: Mapping[str, Any]) -> InputInfo:
        """``get_input_info`` of one input of a node with these *inputs*."""
        return get_input_info(class_def, input_name, self.of_node(class_def, inputs))
