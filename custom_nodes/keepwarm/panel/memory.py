"""The models in memory, as rows: from the RAM model cache where the server has one, else from what is loaded and what the pack holds."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..preload.config import KINDS
from ..preload.keepers import OwnKeeper
from ..preload.preloader import Entry, Preloader, State
from .model_files import ModelFiles
from .rows import Action, Row, Tier

_TIERS = {"kept": Tier.RAM, "lent": Tier.IN_USE}


class MemoryModels:
    """Reads them. Any thread.

    *management*: ``comfy.model_management``; *cache*: its RAM model cache or None; *preloader* gives the preloader, or None as long as
    there is none; *can_move*: whether single models can be moved off their device; *wall_clock* counts seconds since the epoch.
    """

    def __init__(
        self,
        management: Any,
        cache: Any,
        files: ModelFiles,
        preloader: Callable[[], Preloader | None],
        can_move: bool,
        wall_clock: Callable[[], float],
    ) -> None:
        self._management, self._cache, self._files = management, cache, files
        self._preloader, self._can_move, self._wall_clock = preloader, can_move, wall_clock

    def rows(self) -> list[Row]:
        """Every model in memory."""
        return [*self._cached(), *self._others()]

    def loaded(self, row_id: str) -> list[Any]:
        """The server's ``LoadedModel`` objects for the row *row_id* of the cache."""
        return [loaded for loaded in self._loaded_models() if self._cached_id(loaded) == row_id]

    def held_entry(self, row_id: str) -> Entry | None:
        """The preloaded model that the row *row_id* is of, in a server without a cache."""
        return next((entry for entry in self._own_entries() if _entry_id(entry) == row_id), None)

    def _cached(self) -> Iterator[Row]:
        now_s = self._wall_clock()
        for facts in self._cache.named.facts() if self._cache is not None else ():
            on_device, is_kept = facts.device_bytes > 0, facts.state == "kept"
            actions = [Action.LET_GO] if facts.held else [Action.HOLD] * is_kept
            actions += [Action.TO_RAM] * (on_device and self._can_move) + [Action.DROP] * is_kept
            yield Row(
                id=f"cache:{facts.name}",
                name=" + ".join(map(os.path.basename, facts.paths)) or facts.label,
                kind=facts.component,
                files=self._files.named(facts.paths),
                tier=Tier.VRAM if on_device else _TIERS.get(facts.state, Tier.IN_USE),
                ram_bytes=facts.host_bytes,
                vram_bytes=facts.device_bytes,
                used_at=now_s - facts.idle_s,
                held=facts.held,
                users=facts.users,
                reload_s=facts.reload_s,
                actions=tuple(actions),
            )

    def _others(self) -> Iterator[Row]:
        """What the cache does not know: loaded models, and what the pack holds itself."""
        own = {(KINDS[entry.wanted.kind].folder, name): entry for entry in self._own_entries() for name in entry.wanted.files}
        shown: set[str] = set()
        for loaded in self._loaded_models():
            patcher = loaded.model
            if patcher is None or self._cached_id(loaded) is not None:
                continue
            files = self._files.named(_paths_of(patcher))
            entry = next((own[file] for file in files if file in own), None)
            shown.update([_entry_id(entry)] if entry is not None else [])
            yield self._loaded_row(loaded, patcher, files, entry)
        for entry in own.values():
            if _entry_id(entry) not in shown:
                shown.add(_entry_id(entry))
                folder = KINDS[entry.wanted.kind].folder
                files = tuple((folder, name) for name in entry.wanted.files)
                yield Row(
                    id=_entry_id(entry),
                    name=" + ".join(entry.wanted.files),
                    kind=KINDS[entry.wanted.kind].name,
                    files=files,
                    tier=Tier.RAM,
                    ram_bytes=entry.file_bytes,
                    held=True,
                    reload_s=entry.seconds,
                    actions=(Action.LET_GO,),
                )

    def _loaded_row(self, loaded: Any, patcher: Any, files: tuple[tuple[str, str], ...], entry: Entry | None) -> Row:
        whole_bytes, loaded_bytes = int(patcher.model_size()), int(loaded.model_loaded_memory())
        on_device = not is_host(loaded.device)
        return Row(
            id=f"loaded:{id(patcher.model):x}" if entry is None else _entry_id(entry),
            name=" + ".join(dict.fromkeys(name for _, name in files)) or type(patcher.model).__name__,
            kind=type(patcher.model).__name__,
            files=files,
            tier=Tier.VRAM if on_device and loaded_bytes else Tier.RAM,
            ram_bytes=whole_bytes - loaded_bytes if on_device else whole_bytes,
            vram_bytes=loaded_bytes if on_device else 0,
            held=entry is not None,
            users=int(bool(loaded.currently_used)),
            reload_s=None if entry is None else entry.seconds,
            actions=() if entry is None else (Action.LET_GO,),
        )

    def _loaded_models(self) -> list[Any]:
        # Without torch there is no model, and asking would be the first to import it.
        return list(self._management.current_loaded_models) if "torch" in sys.modules else []

    def _cached_id(self, loaded: Any) -> str | None:
        name = None if self._cache is None else self._cache.named.name_of(loaded)
        return None if name is None else f"cache:{name}"

    def _own_entries(self) -> list[Entry]:
        preloader = self._preloader()
        if preloader is None or not isinstance(preloader.keeper, OwnKeeper):
            return []
        return [entry for entry in preloader.plan.entries if entry.state is State.HELD and preloader.keeper.holds(entry.call)]


def is_host(device: Any) -> bool:
    """Whether *device* is the processor itself; one with an index plays an accelerator."""
    return getattr(device, "type", None) == "cpu" and getattr(device, "index", None) is None


def _entry_id(entry: Entry) -> str:
    return f"held:{entry.wanted.cache_key}"


def _paths_of(patcher: Any) -> list[str]:
    """The files that ComfyUI noted to load *patcher* from again, real paths; none in versions that note nothing."""
    noted = getattr(patcher, "cached_patcher_init", None)
    arguments = noted[1] if isinstance(noted, tuple) and len(noted) > 1 else ()
    return list(dict.fromkeys(os.path.realpath(text) for text in _texts(arguments) if os.path.isabs(text)))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _texts(value)
