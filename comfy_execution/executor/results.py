"""What a node's calls returned, in one shape: values per socket, ``ui``, and graphs to expand."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker, is_link

log = logging.getLogger(__name__)

# Python writes no larger numbers as decimal digits, so JSON cannot carry them.
_MOST_BITS = 14_000


@dataclass(frozen=True, slots=True)
class CallReturn:
    """One call's return: *values* per socket (None: it returned no outputs), its *ui* and the graph it asks to *expand*."""

    values: Any
    ui: Any = None
    expand: Mapping[str, dict] | None = None


def _is_node_output(returned: Any) -> bool:
    return hasattr(returned, "block_execution") and hasattr(returned, "expand")


def _blocked(blocker: ExecutionBlocker, class_def: Any) -> tuple:
    return (blocker,) * len(class_def.RETURN_TYPES or ())


def read_return(returned: Any, class_def: Any) -> CallReturn:
    """Read what a function returned: a tuple, None, a dict, an ``ExecutionBlocker`` or a ``NodeOutput``.

    Raises ``TypeError`` for anything else that has no length.
    """
    ui = expand = None
    if isinstance(returned, dict):
        ui, expand, values = returned.get("ui"), returned.get("expand"), returned.get("result")
    elif _is_node_output(returned):
        ui, expand, values = returned.ui, returned.expand, tuple(returned.args) or None
        if returned.block_execution is not None:
            values = ExecutionBlocker(returned.block_execution)
    else:
        values = returned
    if isinstance(values, tuple) and len(values) == 1 and isinstance(values[0], ExecutionBlocker) and _is_node_output(returned):
        values = values[0]
    if isinstance(values, ExecutionBlocker):
        values = _blocked(values, class_def)
    if values is not None and not hasattr(values, "__len__"):
        raise TypeError(f"{class_def.__name__} returned {type(values).__name__}; a node returns a tuple with one value per output")
    return CallReturn(values, ui, expand)


def _list_flags(class_def: Any, count: int) -> list[bool]:
    flags = list(getattr(class_def, "OUTPUT_IS_LIST", None) or ())
    return [bool(flag) for flag in flags[:count]] + [False] * (count - len(flags))


def _value_at(values: Any, socket: int, class_def: Any) -> Any:
    try:
        return values[socket]
    except IndexError:
        raise IndexError(
            f"{class_def.__name__} returned {len(values)} outputs for one item of its input lists and more for another"
        ) from None


def _socket_items(value: Any, is_list: bool) -> Iterable:
    return value if is_list and not isinstance(value, ExecutionBlocker) else (value,)


def merge_values(calls: Iterable[Any], class_def: Any) -> list[list]:
    """One list per socket over all calls: an item per call, or the concatenation where ``OUTPUT_IS_LIST`` says so.

    Calls that returned no outputs are passed over.
    """
    given = [values for values in calls if values is not None]
    if not given:
        return []
    merged: list[list] = []
    for socket, is_list in enumerate(_list_flags(class_def, len(given[0]))):
        merged.append([item for values in given for item in _socket_items(_value_at(values, socket, class_def), is_list)])
    return merged


def merge_resolved(calls: Iterable[tuple[bool, Any]], class_def: Any, linked: Any) -> list[list]:
    """Like ``merge_values``, for calls of which some were expanded: ``(was it, its values)``.

    In an expanded call's values links stand for results; ``linked(link)`` gives the list that the link delivers.
    """
    given = [(expanded, values) for expanded, values in calls if values is not None]
    if not given:
        return []
    merged: list[list] = []
    for socket, is_list in enumerate(_list_flags(class_def, len(given[0][1]))):
        items: list = []
        for expanded, values in given:
            value = _value_at(values, socket, class_def)
            items.extend(linked(value) if expanded and is_link(value) else _socket_items(value, is_list))
        merged.append(items)
    return merged


def json_safe(value: Any) -> Any:
    """A copy that JSON can carry: tuples and sets become lists, numbers of array libraries plain ones, NaN and infinity None.

    Anything else becomes its text, cut at 4,096 characters.
    """
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return printable(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item) for item in value]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return json_safe(value.item())
    return printable(value)


def type_name(kind: type) -> str:
    """The name of a class, also where its metaclass will not tell. Never raises."""
    return str.__str__(type.__dict__["__name__"].__get__(kind))


def qualified_name(kind: type) -> str:
    """The module and name of a class; the name alone where either will not tell. Never raises."""
    try:
        return f"{printable(kind.__module__)}.{printable(kind.__qualname__)}"
    except BaseException:
        return type_name(kind)


def printable(value: Any, max_chars: int = 4096) -> str:
    """``str(value)``, bounded; a value that cannot be printed is named by its type. Never raises."""
    try:
        # A class of its own for texts may give itself any length.
        text = str.__str__(str(value))
    except BaseException as error:
        text = f"<{type_name(type(value))} that cannot be printed: {type_name(type(error))}>"
    return text if len(text) <= max_chars else f"{text[:max_chars]}… ({len(text)} characters)"


def merge_ui(uis: Iterable[Any], node_label: str) -> dict[str, list]:
    """The ``ui`` of all calls as one: the lists under each key joined, in a form that JSON can carry.

    A value that is not a list becomes a list of itself. A ``ui`` that is not a mapping is left out with a warning.
    """
    merged: dict[str, list] = {}
    for ui in uis:
        if ui is not None and not isinstance(ui, Mapping) and hasattr(ui, "as_dict"):
            ui = ui.as_dict()
        if ui is not None and not isinstance(ui, Mapping):
            log.warning("%s returned a ui of type %s instead of a dict; it is not shown", node_label, type(ui).__name__)
            continue
        for key, items in (ui or {}).items():
            listed = items if isinstance(items, (list, tuple)) else [items]
            merged.setdefault(str(key), []).extend(json_safe(list(listed)))
    return merged


def get_output_from_returns(return_values: list, obj: Any) -> tuple[Any, dict[str, list], bool]:
    """Merge what a node's calls returned: ``(outputs, ui, was it expanded)``.

    Outputs are a list per socket, or, when a call asked for an expansion, ``(graph or None, values)`` per call.
    """
    class_def = obj if isinstance(obj, type) else type(obj)
    calls = [read_return(value, class_def) for value in return_values]
    ui = merge_ui((call.ui for call in calls), class_def.__name__)
    if any(call.expand is not None for call in calls):
        return [(call.expand, call.values) for call in calls if call.expand is not None or call.values is not None], ui, True
    return merge_values((call.values for call in calls), class_def), ui, False


def valid_ui_output(ui: Any) -> dict | None:
    """The output part of a cached entry's ``ui`` (``{"output": {...}, "meta": {...}}``), or None if it has another shape."""
    output = ui.get("output") if isinstance(ui, Mapping) else None
    return json_safe(output) if isinstance(output, Mapping) else None
