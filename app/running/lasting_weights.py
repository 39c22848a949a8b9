"""The store of weights that a flag names: opened at the start, shown, and emptied when memory is asked for."""

from __future__ import annotations

from typing import Any

from comfy import model_management
from comfy.cli_args import args
from comfy.lazy_import import lazy_module

description = lazy_module("comfy.ram_model_store.description")
folders = lazy_module("comfy.ram_model_store.folder")


def open_store() -> None:
    """Open the store, if a flag names one. Raises ``SystemExit`` for a folder that may not be used."""
    if not args.ram_model_store:
        return
    try:
        model_management.process_models().open_store()
    except folders.StoreRefused as error:
        raise SystemExit(f"--ram-model-store {args.ram_model_store}: {error}") from None


def describe() -> dict[str, Any]:
    """The section of ``GET /caches``."""
    store = model_management.process_models().store()
    if store is None:
        return {"enabled": False}
    found: dict[str, Any] = description.describe(store)
    return found


def clear(why: str) -> None:
    """Remove what no other server uses."""
    store = model_management.process_models().store()
    if store is not None:
        store.clear(why)
