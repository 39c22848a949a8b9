"""Runs in the started process, with the standard library only: imports some modules from an overlay folder instead of the checkout.

Usage: import_hook.py OVERLAY [flags of main.py …]
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import os
import sys
import traceback
from collections.abc import Sequence
from types import CodeType, ModuleType


class OverlayFinder(importlib.abc.MetaPathFinder):
    """Finds the named *modules* (dotted name → path below the checkout) in *overlay*, reporting the checkout's path as their file."""

    def __init__(self, overlay: str, root: str, modules: dict[str, str]) -> None:
        self._overlay = overlay
        self._root = root
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of an overlaid module; None leaves every other module to the ordinary finders."""
        below = self._modules.get(name)
        if below is None:
            return None
        shown = os.path.join(self._root, *below.split("/"))
        loader = OverlayLoader(name, shown, os.path.join(self._overlay, *below.split("/")))
        inside = [os.path.dirname(shown)] if below.endswith("/__init__.py") else None
        return importlib.util.spec_from_file_location(name, shown, loader=loader, submodule_search_locations=inside)


class OverlayLoader(importlib.machinery.SourceFileLoader):
    """Compiles an overlay file under the checkout's path, and leaves no byte code behind."""

    def __init__(self, name: str, shown: str, real: str) -> None:
        super().__init__(name, shown)
        self._real = real

    def get_data(self, path: str) -> bytes:
        """The overlay's source where the module's own source is asked for."""
        if path == self.path:
            path = self._real
        return super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Always compiled from the overlay: cached byte code belongs to the untouched file."""
        # Tracebacks show the lines that ran. (Without a time of change an entry is never compared with the file.)
        source = self.get_data(self.path)
        linecache.cache[self.path] = (len(source), None, importlib.util.decode_source(source).splitlines(keepends=True), self.path)
        return compile(source, self.path, "exec", dont_inherit=True)


def install(overlay: str) -> tuple[str, dict[str, str]]:
    """Import from *overlay* from now on; the checkout's folder, and the modules (dotted name → path below the checkout)."""
    with open(os.path.join(overlay, "overlay.json"), encoding="utf-8") as file:
        document = json.load(file)
    sys.meta_path.insert(0, OverlayFinder(overlay, document["root"], document["modules"]))
    return document["root"], document["modules"]


def main() -> None:
    """Install the finder and run ``main.py``, the overlay's if it has one, as the main program."""
    overlay = sys.argv[1]
    root, modules = install(overlay)
    sys.path[0] = root
    sys.argv = [os.path.join(root, "main.py"), *sys.argv[2:]]
    loader = OverlayLoader("__main__", sys.argv[0], os.path.join(overlay if "main" in modules else root, "main.py"))
    program = ModuleType("__main__")
    program.__file__ = sys.argv[0]
    sys.modules["__main__"] = program
    sys.excepthook = traceback.print_exception  # the interpreter's own reads lines from the files
    loader.exec_module(program)


if __name__ == "__main__":
    main()
