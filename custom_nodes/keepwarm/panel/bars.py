"""How full each tier is: bytes used and room, for the panel's bars."""

import sys
from collections.abc import Iterable
from typing import Any

from .memory import is_host
from .rows import Row

Bar = dict[str, Any]


def vram_bar(management: Any, rows: Iterable[Row]) -> Bar | None:
    """All devices with memory of their own together; None without one, and as long as nothing has imported torch."""
    if "torch" not in sys.modules:
        return None
    every = getattr(management, "get_all_torch_devices", lambda: [management.get_torch_device()])
    devices = [device for device in every() if not is_host(device)]
    if not devices:
        return None
    return {
        "used_bytes": sum(row.vram_bytes for row in rows),
        "room_bytes": sum(int(management.get_total_memory(device)) for device in devices),
        "free_bytes": sum(int(management.get_free_memory(device)) for device in devices),
        "devices": [str(device) for device in devices],
    }


def ram_bar(cache: Any, rows: Iterable[Row], memory: Any) -> Bar:
    """Models in RAM, of the cache's cap or, without a cache, of the machine's memory; *memory*: what ``psutil.virtual_memory()`` gives."""
    stats = None if cache is None else cache.stats()
    return {
        "used_bytes": sum(row.ram_bytes for row in rows),
        "room_bytes": memory.total if stats is None else stats.cap_bytes,
        "free_bytes": memory.available,
        "capped": stats is not None,
    }


def store_bar(stores: Iterable[tuple[str, Any]], max_age_s: float) -> Bar | None:
    """Node results on this machine's disk, of the caps together; *stores*: (name, store). None where none has a cap.

    Stores on other machines tell no sizes. Blocks where a folder has not been counted for *max_age_s*.
    """
    parts = [
        {"name": name, "used_bytes": store.used_bytes(max_age_s), "room_bytes": store.cap_bytes}
        for name, store in stores
        if hasattr(store, "cap_bytes")
    ]
    if not parts:
        return None
    used_bytes, room_bytes = (sum(part[what] for part in parts) for what in ("used_bytes", "room_bytes"))
    return {"used_bytes": used_bytes, "room_bytes": room_bytes, "free_bytes": max(0, room_bytes - used_bytes), "parts": parts}


def disk_bar(rows: Iterable[Row]) -> Bar:
    """All model files; *used_bytes* are those of files that are in memory too."""
    rows = list(rows)
    loaded = {file for row in rows if row.in_memory for file in row.files}
    files = [row for row in rows if not row.in_memory]
    return {
        "used_bytes": sum(row.disk_bytes for row in files if not loaded.isdisjoint(row.files)),
        "room_bytes": sum(row.disk_bytes for row in files),
        "files": len(files),
    }
