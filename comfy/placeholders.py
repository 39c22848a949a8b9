"""Names of models that this server does not have, for node packs that import, compare with or derive from them.

A module of such names is a table: ``__getattr__, __dir__ = placeholders(__name__, "Flux models", "Flux rope()")``. Nothing is made before
a pack asks for it, and nothing of it can be used: making an object or calling a function raises :class:`MissingModelError`.
"""

import functools
import importlib
import pathlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

NETWORK = "torch.nn.Module"
PACK_FOLDER = "custom_nodes"


class MissingModelError(NotImplementedError):
    """A pack used a part of a model, or a function, that this server does not have."""


def placeholders(module: str, owner: str, names: str, base: str = NETWORK) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of the module named *module*, whose *names* belong to *owner* ("Flux models").

    *names*, separated by blanks: ``name()`` is a function, ``Name`` a class that derives from *base*, ``Name:Other`` one that derives from
    ``Other`` (in the same module, ``object`` or by its full name), ``Name=module`` is that of another module. Each is made once, so that
    ``is`` and ``isinstance`` hold.
    """
    table = dict(_entry(text) for text in names.split())

    @functools.cache
    def named(name: str) -> Any:
        if name not in table:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        kind, where = table[name]
        if kind == "=":
            return getattr(importlib.import_module(where), name)
        if kind == "()":
            return _function(module, name, owner)
        return _class(module, name, owner, _resolved(module, where or base))

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[module]), *table})

    return named, listed


def _entry(text: str) -> tuple[str, tuple[str, str]]:
    """A name of the table, its kind ("()", "=" or ":") and the class or module after it, if any."""
    kind = next((mark for mark in ("()", "=") if mark in text), ":")
    name, _, where = text.partition(kind)
    return name, (kind, where)


def _resolved(module: str, name: str) -> type:
    first, *rest = name.split(".")
    if first == "object":
        return object
    own = sys.modules[module]
    found: Any = getattr(own, first) if not rest or hasattr(own, first) else importlib.import_module(first)
    for part in rest:
        found = getattr(found, part)
    return found


def _class(module: str, name: str, owner: str, parent: type) -> type:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        _refuse(f"{module}.{name}", owner)

    members = {
        "__init__": refuse,
        "__module__": module,
        "__qualname__": name,
        "__doc__": f"Stands for a part of {owner}; it cannot be made.",
    }
    return type(name, (parent,), members)


def _function(module: str, name: str, owner: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        _refuse(f"{module}.{name}()", owner)

    refuse.__module__, refuse.__name__, refuse.__qualname__ = module, name, name
    refuse.__doc__ = f"Stands for a function of {owner}; it cannot be called."
    return refuse


def _refuse(what: str, owner: str) -> NoReturn:
    """Raise for the first caller outside this module."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    raise MissingModelError(f"{_place(frame)} needs {what}, which belongs to {owner}; this server does not have it")


def _place(frame: FrameType | None) -> str:
    """The pack's file and line, from the folder of packs on."""
    if frame is None:
        return "a node pack"
    parts = pathlib.PurePath(frame.f_code.co_filename).parts
    if PACK_FOLDER in parts:
        last = len(parts) - 1 - parts[::-1].index(PACK_FOLDER)
        parts = parts[last + 1 :]
    return f"{'/'.join(parts)}, line {frame.f_lineno}, in {frame.f_code.co_name}(),"
