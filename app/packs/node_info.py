"""What ``/object_info`` says about a node class."""

from typing import Any

import nodes
from comfy_execution.nodes_graph.schema_class import is_schema_class

# Printed only for classes that set them.
_SWITCHES = {"deprecated": "DEPRECATED", "experimental": "EXPERIMENTAL", "dev_only": "DEV_ONLY"}
_OPTIONAL = {"output_tooltips": "OUTPUT_TOOLTIPS", "api_node": "API_NODE", "essentials_category": "ESSENTIALS_CATEGORY"}


def node_info(class_type: str, node_class: Any) -> dict[str, Any]:
    """The entry of one node: V3 classes describe themselves, V1 classes are read attribute by attribute.

    Calls the author's code, which may read folders; raises whatever that raises.
    """
    info = node_class.GET_NODE_INFO_V1() if is_schema_class(node_class) else _v1_info(class_type, node_class)
    if not isinstance(info.get("python_module"), str):
        info["python_module"] = _python_module(node_class)
    return info


def registered_node_info(class_type: str) -> dict[str, Any] | None:
    """The entry of a registered class, None for an unknown one. Raises as ``node_info`` does."""
    node_class = nodes.NODE_CLASS_MAPPINGS.get(class_type)
    return None if node_class is None else node_info(class_type, node_class)


def _v1_info(class_type: str, node_class: Any) -> dict[str, Any]:
    inputs = node_class.INPUT_TYPES()
    outputs = list(node_class.RETURN_TYPES)
    info = {
        "input": inputs,
        "input_order": {section: list(entries) for section, entries in inputs.items()},
        "is_input_list": getattr(node_class, "INPUT_IS_LIST", False),
        "output": outputs,
        "output_is_list": getattr(node_class, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node_class, "RETURN_NAMES", outputs),
        "name": class_type,
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(class_type, class_type),
        "description": getattr(node_class, "DESCRIPTION", ""),
        "python_module": _python_module(node_class),
        "category": getattr(node_class, "CATEGORY", "sd"),
        "output_node": getattr(node_class, "OUTPUT_NODE", False) is True,
        "has_intermediate_output": getattr(node_class, "HAS_INTERMEDIATE_OUTPUT", False) is True,
        "search_aliases": getattr(node_class, "SEARCH_ALIASES", []),
    }
    info.update({key: True for key, attribute in _SWITCHES.items() if getattr(node_class, attribute, False)})
    info.update({key: getattr(node_class, attribute) for key, attribute in _OPTIONAL.items() if hasattr(node_class, attribute)})
    return info


def _python_module(node_class: type) -> str:
    module = getattr(node_class, "RELATIVE_PYTHON_MODULE", None)
    return module if isinstance(module, str) else "nodes"
