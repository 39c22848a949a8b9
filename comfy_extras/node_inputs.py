"""Shorthands for the entries of ``INPUT_TYPES``."""

from typing import Any

MAX_RESOLUTION = 16384


def whole(default: int, lowest: int, highest: int, step: int | None = None, **options: Any) -> tuple[str, dict[str, Any]]:
    """An INT input with its bounds; *options* are further widget options."""
    return _number("INT", default, lowest, highest, step, options)


def real(default: float, lowest: float, highest: float, step: float | None = 0.01, **options: Any) -> tuple[str, dict[str, Any]]:
    """A FLOAT input with its bounds; *options* are further widget options."""
    return _number("FLOAT", default, lowest, highest, step, options)


def _number(
    kind: str, default: float, lowest: float, highest: float, step: float | None, options: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    steps = {} if step is None else {"step": step}
    return kind, {"default": default, "min": lowest, "max": highest, **steps, **options}


def pixels(default: int, lowest: int = 0, step: int | None = 1, **options: Any) -> tuple[str, dict[str, Any]]:
    """An input for a length in pixels, up to the largest supported resolution."""
    return whole(default, lowest, MAX_RESOLUTION, step, **options)


def combo(choices: list[Any], **options: Any) -> tuple[str, dict[str, Any]]:
    """A drop-down list, in the form that V3 nodes print."""
    return "COMBO", {"multiselect": False, "options": choices, **options}


def socket(kind: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """An input of type *kind* without a widget, in the form that V3 nodes print."""
    return kind, options


def boolean(default: bool, **options: Any) -> tuple[str, dict[str, Any]]:
    """A BOOLEAN input."""
    return "BOOLEAN", {"default": default, **options}


def text(default: str | None = None, multiline: bool | None = None, **options: Any) -> tuple[str, dict[str, Any]]:
    """A STRING input."""
    given = {"default": default, "multiline": multiline}
    return "STRING", {**{name: value for name, value in given.items() if value is not None}, **options}
