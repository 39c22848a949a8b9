"""What the panel's buttons do to one model."""

from collections.abc import Callable
from typing import Any

from ..preload.config import KINDS, Wanted, generated_key
from ..preload.loader_calls import Unloadable
from ..preload.preloader import State
from ..preload.startup import Preloading
from .memory import MemoryModels
from .model_files import ModelFiles
from .rows import Action

_KINDS = {kind.folder: name for name, kind in KINDS.items()}


class NotPossible(Exception):
    """What was asked for cannot be done; the text says why."""


class Actions:
    """Carries them out. :meth:`do` blocks as long as loading takes; any thread.

    *management*: ``comfy.model_management``; *cache*: its RAM model cache or None; *queue*: the server's, which lets calls be made between
    two prompts where it has ``between_prompts``.
    """

    def __init__(self, management: Any, cache: Any, queue: Any, models: MemoryModels, files: ModelFiles, preloading: Preloading) -> None:
        self._management, self._cache, self._queue = management, cache, queue
        self._models, self._files, self._preloading = models, files, preloading

    def do(self, action: Action, row_id: str, options: dict[str, str]) -> str:
        """Do *action* to the model of the row *row_id*; returns what has happened, for people. Raises :class:`NotPossible`."""
        acts: dict[Action, Callable[[], str]] = {
            Action.HOLD: lambda: self._hold(row_id, True),
            Action.LET_GO: lambda: self._hold(row_id, False),
            Action.DROP: lambda: self._drop(row_id),
            Action.TO_RAM: lambda: self._move_to_ram(row_id),
            Action.PRELOAD: lambda: self._preload(row_id, options),
        }
        return acts[action]()

    def _hold(self, row_id: str, held: bool) -> str:
        if not held and row_id.startswith("held:"):
            entry, preloader = self._models.held_entry(row_id), self._preloading.preloader
            if entry is None or preloader is None:
                raise NotPossible("This model is not held any more.")
            preloader.let_go(entry)
            return "Let go."
        if not self._named().hold(_name(row_id), held):
            raise NotPossible("This model is not in memory any more.")
        return "Held: it is the last to go." if held else "Let go: it goes when its room is needed."

    def _drop(self, row_id: str) -> str:
        users = next((row.users for row in self._models.rows() if row.id == row_id), 0)
        if not self._named().drop(_name(row_id), "asked for in the panel"):
            raise NotPossible("This model is not kept any more.")
        return f"Dropped; its memory is free once nobody uses it ({users} still {'does' if users == 1 else 'do'})." if users else "Dropped."

    def _move_to_ram(self, row_id: str) -> str:
        between_prompts = getattr(self._queue, "between_prompts", None)
        if between_prompts is None:
            raise NotPossible("This server moves all models at once only.")
        if not self._models.loaded(row_id):
            raise NotPossible("This model is on no device any more.")
        waits = between_prompts(lambda: self._unload(row_id))
        return "It moves to RAM when the running prompt has ended." if waits else "It moves to RAM."

    def _unload(self, row_id: str) -> None:
        for loaded in self._models.loaded(row_id):
            patcher = loaded.model
            if patcher is not None:
                self._management.unload_model_and_clones(patcher, all_devices=True)

    def _preload(self, row_id: str, options: dict[str, str]) -> str:
        file = self._files.find(row_id)
        if file is None or file.folder not in _KINDS:
            raise NotPossible("There is no such model file; checkpoints, text encoders, diffusion models and VAEs can be preloaded.")
        kind, names = _KINDS[file.folder], (file.name,)
        options = {name: value for name, value in options.items() if name in KINDS[kind].options}
        wanted = Wanted(kind, file.name, names, options, generated_key(KINDS[kind].name, names, options), "asked for in the panel")
        try:
            entry = self._preloading.add(wanted)
        except Unloadable as error:
            raise NotPossible(error.problem.text) from None
        except OSError as error:
            raise NotPossible(f"{file.name} cannot be read: {error.strerror}") from None
        if entry.state is not State.HELD:
            raise NotPossible(f"Not held: {entry.why}")
        return f"Preloaded in {entry.seconds:.1f} s, and held."

    def _named(self) -> Any:
        if self._cache is None:
            raise NotPossible("This server keeps no models in RAM that could be held or dropped; preload one to hold it.")
        return self._cache.named


def _name(row_id: str) -> str:
    return row_id.removeprefix("cache:")
