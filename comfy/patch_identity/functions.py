"""What a function does apart from the values it was given: its code, and the plain values of its module that the code reads. Portable."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def module_of(function: types.FunctionType) -> types.ModuleType | None:
    """The imported module whose names *function* reads; None for a function made any other way."""
    module = sys.modules.get(function.__module__ or "")
    return module if module is not None and vars(module) is function.__globals__ else None


def code_parts(code: types.CodeType) -> list[Any]:
    """Everything that decides what *code* does, nested functions included, as plain values. Its place in the file is left out."""
    parts: list[Any] = [
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
    ]
    parts += [code_parts(constant) if isinstance(constant, types.CodeType) else constant for constant in code.co_consts]
    return parts


def plain_globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    """(name, value) of the numbers and texts of its module that *function* and the functions in it read.

    Other names are read when the function runs, by the old and the new one alike.
    """
    found = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return [(name, value) for name, value in sorted(found.items()) if type(value) in PLAIN]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
