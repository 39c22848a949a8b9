"""Rounds numbers that one node hands to another's widget, and joins declared ranges, as the page does."""

import math
from collections.abc import Mapping
from typing import Any

from app.workflow_pages.input_specs import InputSpec

_FREE_OPTIONS = frozenset(
    {"default", "forceInput", "defaultInput", "control_after_generate", "multiline", "tooltip", "dynamicPrompts", "min", "max", "step"}
)


def rounded(value: Any, spec: InputSpec | None) -> Any:
    """*value* as a number widget of *spec* takes it; what is not a number stays as it is."""
    if spec is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    if spec.widget_type == "INT":
        return _whole(value, spec.options)
    return _fraction(float(value), spec.options) if spec.widget_type == "FLOAT" else value


def merged_range(specs: list[InputSpec]) -> tuple[float, float] | None:
    """The range that all of *specs* allow, or None when they cannot be joined."""
    first = specs[0]
    low, high = _range(first.options)
    for spec in specs[1:]:
        other_low, other_high = _range(spec.options)
        keys = (set(first.options) | set(spec.options)) - _FREE_OPTIONS
        if spec.type != first.type or low > other_high or high < other_low:
            return None
        if any(first.options.get(key) != spec.options.get(key) for key in keys):
            return None
        low, high = max(low, other_low), min(high, other_high)
    return low, high


def _range(options: Mapping[str, Any]) -> tuple[float, float]:
    return _number(options.get("min"), -math.inf), _number(options.get("max"), math.inf)


def _number(value: Any, fallback: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else fallback


def _finite(value: Any, fallback: float) -> float:
    """*value* if it is a finite number, which a specification need not hold."""
    number = _number(value, fallback)
    return number if math.isfinite(number) else fallback


def _whole(value: int | float, options: Mapping[str, Any]) -> int:
    step = _finite(options.get("step"), 1) or 1
    if isinstance(value, int) and step == 1:
        return value
    offset = math.fmod(_finite(options.get("min"), 0), step)
    return math.floor(value + 0.5) if step == 1 else int(math.floor((value - offset) / step + 0.5) * step + offset)


def _fraction(value: float, options: Mapping[str, Any]) -> float:
    step = _finite(options.get("step"), 0.5)
    precision = max(0, -math.floor(math.log10(step))) if step > 0 else 0
    declared = _finite(options.get("round"), 0)
    grain = 10.0**-precision if precision and not declared else declared
    if not grain:
        return value
    result = round(math.floor(value / grain + 0.5) * grain, precision)
    return min(max(result, _number(options.get("min"), 0)), _number(options.get("max"), 2048))
