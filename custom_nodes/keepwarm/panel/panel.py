"""The panel's parts put together in whichever server loads the pack."""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..preload.loader_calls import choices
from ..preload.startup import Preloading
from .actions import Actions
from .bars import disk_bar, ram_bar, store_bar, vram_bar
from .differences import Picture
from .memory import MemoryModels
from .model_files import ModelFiles
from .prompts import Prompts
from .watch import Watch

FILES_MAX_AGE_S = 15.0
STORES_MAX_AGE_S = 60.0  # other servers may write into them


class Panel:
    """What the routes serve. Made once, when the pack loads; nothing is read before a page asks.

    *server*: the ``PromptServer``; *preloading*: the process's; *providers* describes the pack's providers where the server does not;
    *stores* are theirs, as (name, store).
    """

    def __init__(
        self, server: Any, preloading: Preloading, providers: Callable[[], list[dict[str, Any]]], stores: Sequence[tuple[str, Any]] = ()
    ) -> None:
        self._server, self._providers, self._stores = server, providers, stores
        self._management = importlib.import_module("comfy.model_management")
        self._cache = _cache(self._management)
        self.files = ModelFiles(importlib.import_module("folder_paths"))
        can_move = hasattr(server.prompt_queue, "between_prompts")
        self._models = MemoryModels(self._management, self._cache, self.files, lambda: preloading.preloader, can_move, time.time)
        self._prompts = Prompts(server.prompt_queue, self._cache)
        self.actions = Actions(self._management, self._cache, server.prompt_queue, self._models, self.files, preloading)
        self.watch = Watch(self.read, server.send_sync, lambda: server.sockets)

    def read(self) -> Picture:
        """Everything that the panel shows, as JSON data; ``rows`` by id. Blocks."""
        self.files.refresh(FILES_MAX_AGE_S)
        in_memory = self._models.rows()
        rows = [*in_memory, *(file.row() for file in self.files.all())]
        points = self._prompts.points()  # before the current prompt, which may be the newest of them
        return {
            "rows": {row.id: row.as_json() for row in rows},
            "bars": self._bars(rows),
            "prompt": self._prompts.current(),
            "points": points,
            "saved": self._saved(),
            "providers": self._described_providers(),
        }

    def in_memory(self) -> list[dict[str, Any]]:
        """The rows of models that are in memory. Blocks."""
        self.files.refresh(FILES_MAX_AGE_S)
        return [row.as_json() for row in self._models.rows()]

    def text_encoder_types(self) -> list[str]:
        """What the type of a text encoder may be here."""
        loader = importlib.import_module("nodes").NODE_CLASS_MAPPINGS.get("CLIPLoader")
        return [] if loader is None else list(map(str, choices(loader, "type")))

    def _bars(self, rows: list[Any]) -> dict[str, Any]:
        memory = importlib.import_module("psutil").virtual_memory()
        return {
            "vram": vram_bar(self._management, rows),
            "ram": ram_bar(self._cache, rows, memory),
            "store": store_bar(self._stores, STORES_MAX_AGE_S),
            "disk": disk_bar(rows),
        }

    def _saved(self) -> dict[str, Any] | None:
        """Totals of the RAM model cache since the start."""
        if self._cache is None:
            return None
        counters = self._cache.stats().counters
        return {"hits": counters.hits, "misses": counters.misses, "saved_s": counters.saved_seconds, "read_bytes": counters.read_bytes}

    def _described_providers(self) -> list[dict[str, Any]]:
        sections = getattr(self._server, "cache_sections", None)
        results = None if sections is None else sections.section("results")
        found = self._providers() if results is None else results.get("providers", [])
        return [
            {
                "name": one.get("name") or one.get("url"),
                "state": one.get("state"),
                **{name: one.get(name) for name in ("hits", "misses", "errors", "lookup_p50_s", "lookup_p95_s")},
            }
            for one in found
        ]


def _cache(management: Any) -> Any:
    """The server's RAM model cache if it is on and names its models."""
    ram_cache = getattr(management, "ram_cache", None)
    cache = ram_cache() if callable(ram_cache) else None
    return cache if cache is not None and cache.enabled and hasattr(cache, "named") else None
