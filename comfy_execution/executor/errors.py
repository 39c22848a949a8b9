"""What the client is told when a node fails: the error's text, its traceback, and bounded views of inputs."""

import math
import reprlib
import traceback
from collections.abc import Mapping
from typing import Any

from comfy_execution.executor.results import printable

MAX_VALUE_CHARS = 4096
MAX_LIST_ITEMS = 20
MAX_INPUTS_CHARS = 64_000

_containers = reprlib.Repr()
_containers.maxdict = _containers.maxlist = _containers.maxtuple = _containers.maxset = 20
_containers.maxstring = _containers.maxother = 400
_containers.maxlevel = 4


class DuplicateNodeError(Exception):
    """An expansion names a node id that the prompt already has."""


def full_type_name(klass: type) -> str:
    """The qualified name of a class; without the module for built-ins."""
    module = klass.__module__
    return klass.__qualname__ if module == "builtins" else f"{module}.{klass.__qualname__}"


def format_value(value: Any) -> Any:
    """An input value as JSON can show it: plain scalars as they are, the rest as bounded text. Never raises."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        try:
            return printable(_containers.repr(value), MAX_VALUE_CHARS)
        except Exception as error:
            return f"<{type(value).__name__} that can't be printed: {type(error).__name__}>"
    return printable(value, MAX_VALUE_CHARS)


def format_inputs(input_data_all: Mapping[str, Any] | None) -> dict[str, list]:
    """Every input's values, printable: at most ``MAX_LIST_ITEMS`` each and about ``MAX_INPUTS_CHARS`` in all."""
    shown: dict[str, list] = {}
    left_chars = MAX_INPUTS_CHARS
    for name, values in (input_data_all or {}).items():
        if left_chars <= 0:
            shown[name] = ["…"]
            continue
        items = [format_value(value) for value in list(values)[:MAX_LIST_ITEMS]]
        if len(values) > MAX_LIST_ITEMS:
            items.append(f"… ({len(values)} items)")
        left_chars -= sum(len(item) if isinstance(item, str) else 8 for item in items)
        shown[name] = items
    return shown


def error_details(node_id: str, error: BaseException, hint: str, input_data_all: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of an ``execution_error`` that come from the error itself; *hint* tells the user what to try."""
    message = printable(error, 20_000)
    return {
        "node_id": node_id,
        "exception_message": f"{message}\n{hint}" if hint else message,
        "exception_type": full_type_name(type(error)),
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": format_inputs(input_data_all),
    }
