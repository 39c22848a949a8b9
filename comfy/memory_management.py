"""Asking the executor's cache to give up host memory, under ComfyUI's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

aimdo_enabled = False


class _Release:
    """What can free host memory, and how much should stay free."""

    def __init__(self) -> None:
        self.callback: Callable[..., Any] | None = None
        self.headroom_bytes = 0


_release = _Release()


def __getattr__(name: str) -> Any:
    """The settings made by :func:`set_ram_cache_release_state`, under upstream's names."""
    readers = {"RAM_CACHE_HEADROOM": lambda: _release.headroom_bytes, "extra_ram_release_callback": lambda: _release.callback}
    if name not in readers:
        raise AttributeError(f"module 'comfy.memory_management' has no attribute {name!r}")
    return readers[name]()


def set_ram_cache_release_state(callback: Callable[..., Any] | None, headroom: float) -> None:
    """Let *callback(bytes, free_active=...)* free host memory (None: nothing does); *headroom* bytes should stay free."""
    _release.callback = callback
    _release.headroom_bytes = max(0, int(headroom))


def extra_ram_release(target: float, free_active: bool = False) -> Any:
    """Ask for *target* free bytes of host memory. Returns what the callback does, or 0 without one."""
    return 0 if _release.callback is None else _release.callback(target, free_active=free_active)
