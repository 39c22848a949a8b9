"""What the client is told when a node fails: the error's text, its traceback, and bounded views of inputs."""

import math
import reprlib
import traceback
from collections.abc import Mapping
from typing import Any

from comfy_execution.executor.results import printable, qualified_name, type_name

MAX_VALUE_CHARS = 4096
MAX_LIST_ITEMS = 20
# What every JSON reader takes without loss of the whole message.
MAX_INTEGER_BITS = 1024
MAX_INPUTS_CHARS = 64_000

_containers = reprlib.Repr()
_containers.maxdict = _containers.maxlist = _containers.maxtuple = _containers.maxset = 20
_containers.maxstring = _containers.maxother = 400
_containers.maxlevel = 4


class DuplicateNodeError(Exception):
    """An expansion names a node id that the prompt already has."""


def full_type_name(klass: type) -> str:
    """The qualified name of a class; without the module for built-ins."""
    return qualified_name(klass).removeprefix("builtins.")


def format_value(value: Any) -> Any:
    """An input value as JSON can show it: plain scalars as they are, the rest as bounded text. Never raises."""
    kind = type(value)
    if value is None or kind is bool or (kind is int and value.bit_length() < MAX_INTEGER_BITS):
        return value
    if kind is float and math.isfinite(value):
        return value
    if issubclass(kind, (dict, list, tuple, set, frozenset)):
        try:
            return printable(_containers.repr(value), MAX_VALUE_CHARS)
        except BaseException as error:
            return f"<{type_name(kind)} that cannot be printed: {type_name(type(error))}>"
    return printable(value, MAX_VALUE_CHARS)


def format_inputs(input_data_all: Mapping[str, Any] | None) -> dict[str, list]:
    """Every input's values, printable: at most ``MAX_LIST_ITEMS`` each and about ``MAX_INPUTS_CHARS`` in all."""
    shown: dict[str, list] = {}
    left_chars = MAX_INPUTS_CHARS
    for name, values in (input_data_all or {}).items():
        if left_chars <= 0:
            shown[name] = ["…"]
            continue
        items = _format_items(values)
        left_chars -= sum(len(item) if isinstance(item, str) else 8 for item in items)
        shown[name] = items
    return shown


def _format_items(values: Any) -> list:
    try:
        items = [format_value(value) for value in list(values)[:MAX_LIST_ITEMS]]
        return items if len(values) <= MAX_LIST_ITEMS else [*items, f"… ({len(values)} items)"]
    except BaseException as error:
        return [f"<{type_name(type(values))} that cannot be read: {type_name(type(error))}>"]


def _frames(error: BaseException) -> list[str]:
    try:
        return traceback.format_tb(error.__traceback__)
    except BaseException as broken:
        return [f"<a traceback that cannot be shown: {type_name(type(broken))}>"]


def error_details(node_id: str, error: BaseException, hint: str, input_data_all: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of an ``execution_error`` that come from the error itself; *hint* tells the user what to try. Never raises."""
    message = printable(error, 20_000)
    return {
        "node_id": node_id,
        "exception_message": f"{message}\n{hint}" if hint else message,
        "exception_type": full_type_name(type(error)),
        "traceback": _frames(error),
        "current_inputs": format_inputs(input_data_all),
    }
