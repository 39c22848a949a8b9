"""Puts back the few core functions that node packs must not replace.

Only modules that are already imported are looked at, so that guarding them never imports torch.
"""

import sys
from typing import Any

HOOK_BREAK = [("comfy.model_management", "cast_to")]
SAVED_FUNCTIONS: list[tuple[Any, str, Any]] = []


def save_functions() -> None:
    """Remember each guarded function of the modules imported so far; one that is already remembered keeps its first value."""
    for module_name, attribute in HOOK_BREAK:
        module = sys.modules.get(module_name)
        known = any(saved[0] is module and saved[1] == attribute for saved in SAVED_FUNCTIONS)
        if module is not None and not known and hasattr(module, attribute):
            SAVED_FUNCTIONS.append((module, attribute, getattr(module, attribute)))


def restore_functions() -> None:
    """Put every remembered function back into its module."""
    for module, attribute, function in SAVED_FUNCTIONS:
        setattr(module, attribute, function)
