"""Collecting what a node is called with: constants, results of other nodes, and hidden values.

Classes of both node APIs are read through the names of the node contract (``docs/architecture.md``) only.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from comfy_execution.graph_utils import is_link
from comfy_execution.nodes_graph.declared_inputs import get_input_info
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.nodes_graph.schema_class import is_schema_class

InputData = dict[str, Any]


class ResultSource(Protocol):
    """Where finished nodes' results are found (the ``ExecutionList``)."""

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any:
        """The entry (``ui``, ``outputs``) of a node that *to_node_id* depends on, or None."""


def declared_inputs(class_def: Any, inputs: Mapping[str, Any]) -> dict:
    """What the class declares, with groups expanded to the names that *inputs* uses where the class knows such groups."""
    if is_schema_class(class_def):
        return class_def.INPUT_TYPES(live_inputs=inputs)
    return class_def.INPUT_TYPES()


def _original_prompt(unique_id: str, dynprompt: DynamicPrompt | None, extra_data: Mapping) -> Any:
    return {} if dynprompt is None else dynprompt.get_original_prompt()


def _extra(name: str) -> Callable[[str, DynamicPrompt | None, Mapping], Any]:
    return lambda unique_id, dynprompt, extra_data: extra_data.get(name)


HIDDEN_VALUES: dict[str, Callable[[str, DynamicPrompt | None, Mapping], Any]] = {
    "PROMPT": _original_prompt,
    "DYNPROMPT": lambda unique_id, dynprompt, extra_data: dynprompt,
    "EXTRA_PNGINFO": _extra("extra_pnginfo"),
    "UNIQUE_ID": lambda unique_id, dynprompt, extra_data: unique_id,
    "AUTH_TOKEN_COMFY_ORG": _extra("auth_token_comfy_org"),
    "API_KEY_COMFY_ORG": _extra("api_key_comfy_org"),
    "COMFY_USAGE_SOURCE": _extra("comfy_usage_source"),
}


def hidden_values(declared: Mapping, unique_id: str, dynprompt: DynamicPrompt | None, extra_data: Mapping) -> dict[str, Any]:
    """The values of the declared hidden inputs that the server knows, by input name.

    A declaration is a value string (``"PROMPT"``) or a sequence that begins with one.
    """
    found = {}
    for name, kind in (declared.get("hidden") or {}).items():
        if isinstance(kind, (list, tuple)) and kind:
            kind = kind[0]
        provide = HIDDEN_VALUES.get(str.__str__(kind)) if isinstance(kind, str) else None
        if provide is not None:
            found[name] = provide(unique_id, dynprompt, extra_data)
    return found


def _linked_result(link: Any, unique_id: str, results: ResultSource | None) -> list | None:
    """The list that a link delivers, or None while (or if) there is none."""
    entry = None if results is None else results.get_cache(link[0], unique_id)
    if entry is None or entry.outputs is None or not 0 <= link[1] < len(entry.outputs):
        return None
    return entry.outputs[link[1]]


def get_input_data(
    inputs: Mapping[str, Any],
    class_def: Any,
    unique_id: str,
    execution_list: ResultSource | None = None,
    dynprompt: DynamicPrompt | None = None,
    extra_data: Mapping | None = None,
    *,
    declared: Mapping[str, Any] | None = None,
) -> tuple[InputData, dict[str, bool], dict[str, Any]]:
    """Collect a node's inputs: ``(lists by input name, names whose link has no result, hidden data for V3 classes)``.

    Each input is a list (a constant is a list of one). A link without a result counts as ``(None,)``; without *execution_list*
    that is every link. Undeclared constants are dropped unless the class accepts all inputs; undeclared links are delivered.
    *declared* is what the class declares for these inputs, where the caller knows it already.
    """
    is_schema = is_schema_class(class_def)
    accepts_all = is_schema and bool(getattr(class_def, "ACCEPT_ALL_INPUTS", False))
    declared = declared_inputs(class_def, inputs) if declared is None else declared
    collected: InputData = {}
    missing: dict[str, bool] = {}
    for name, value in inputs.items():
        _, category, options = get_input_info(class_def, name, declared)
        if is_link(value) and not (options and options.get("rawLink", False)):
            result = _linked_result(value, unique_id, execution_list)
            if result is None:
                missing[name] = True
            collected[name] = (None,) if result is None else result
        elif category is not None or accepts_all:
            collected[name] = [value]
    hidden = hidden_values(declared, unique_id, dynprompt, extra_data or {})
    if is_schema:
        return collected, missing, {"hidden_inputs": hidden}
    collected.update({name: [value] for name, value in hidden.items()})
    return collected, missing, {"hidden_inputs": {}}
