"""Whether comfy-kitchen is there, and its layouts. It is imported at first use: that takes seconds."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

INSTALL = "pip install -r requirements-quantised.txt -c constraints.txt"


@functools.cache
def is_installed() -> bool:
    """Whether comfy-kitchen can be imported; imports nothing."""
    return importlib.util.find_spec("comfy_kitchen") is not None


@functools.cache
def version() -> str:
    """comfy-kitchen's version, "" where it is missing; imports nothing."""
    return importlib.metadata.version("comfy-kitchen") if is_installed() else ""


@functools.cache
def layouts() -> ModuleType:
    """:mod:`comfy.quantisation.layouts`, which needs comfy-kitchen. Raises ``ImportError`` where that is missing."""
    module = importlib.import_module("comfy.quantisation.layouts")
    module.register()
    return module
