"""The node that converts numbers, texts and booleans to numbers."""

from __future__ import annotations

import math
from typing import Any

from comfy_extras.node_inputs import socket


def to_numbers(value: Any) -> tuple[float, int]:
    """*value* as a float and as an integer, which is truncated and exact for whole numbers of any size.

    Raises ``ValueError`` for text that is not a number, for infinity and for NaN, and ``TypeError`` for other types.
    """
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"a {type(value).__name__} cannot be turned into a number; connect an INT, FLOAT, STRING or BOOLEAN")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    except OverflowError:
        raise ValueError(f"{value} is too large for a FLOAT") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    try:
        return number, int(value)
    except ValueError:  # text such as "2.5" or "1e3"
        return number, int(number)


class NumberConvertNode:
    """Returns a value as FLOAT and as INT."""

    RETURN_TYPES = ("FLOAT", "INT")
    FUNCTION = "execute"
    CATEGORY = "utilities"
    SEARCH_ALIASES = [
        "int to float",
        "float to int",
        "number convert",
        "int2float",
        "float2int",
        "cast",
        "parse number",
        "string to number",
        "bool to int",
    ]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": socket("INT,FLOAT,STRING,BOOLEAN", display_name="value")}}

    @classmethod
    def execute(cls, value: Any) -> tuple[float, int]:
        return to_numbers(value)


NODE_CLASS_MAPPINGS = {"ComfyNumberConvert": NumberConvertNode}

NODE_DISPLAY_NAME_MAPPINGS = {"ComfyNumberConvert": "Convert Number"}
