"""Modules that are imported when they are first used, so that the server starts without them."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for the module *name* and imports it on the first attribute access.

    After that each access costs one dictionary look-up; attributes of our own modules are looked up anew each time, because node
    packs replace them. An ``ImportError`` surfaces at the first use, in the caller.
    """

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), attribute)
        if not attribute.startswith("__") and not self.__name__.startswith("comfy."):
            self.__dict__[attribute] = value
        return value

    def __repr__(self) -> str:
        return f"<lazily imported module {self.__name__!r}>"


def lazy_module(name: str) -> Any:
    """Return a stand-in for the absolute module *name*. Nothing is imported yet; any thread may use it."""
    return LazyModule(name)


def submodules(package: str) -> Callable[[str], ModuleType]:
    """The ``__getattr__`` of the package named *package*, which imports its submodules when they are first read as attributes.

    It raises ``AttributeError`` where there is no such submodule, and whatever importing one raises.
    """

    def imported(name: str) -> ModuleType:
        full_name = f"{package}.{name}"
        if not name.startswith("__"):
            try:
                return importlib.import_module(full_name)
            except ModuleNotFoundError as error:
                if error.name != full_name:
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return imported
