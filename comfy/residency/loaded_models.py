"""The list of models that are on devices."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from comfy.residency.loaded_model import LoadedModel

if TYPE_CHECKING:
    from comfy.residency.protocols import Patcher


class LoadedModels:
    """Owner of the list, the model loaded last first. It holds no strong reference to a model, and making it imports no torch.

    The thread that runs nodes changes the list, and :meth:`forget` may be called by any thread; others may read it. Finalizers only
    append to a queue, which :meth:`forget_ended` drains, so that no loop over the list sees it change.
    """

    def __init__(self) -> None:
        self.entries: list[LoadedModel] = []
        self._ended: deque[None] = deque()

    def entry_of(self, patcher: Patcher) -> LoadedModel | None:
        """The loaded model that *patcher* itself, and no clone of it, is."""
        return next((entry for entry in self.entries if entry.model is patcher), None)

    def new_entry(self, patcher: Patcher) -> LoadedModel:
        """A loaded model for *patcher*, not yet on the list."""
        return LoadedModel(patcher, self._ended)

    def add(self, entry: LoadedModel) -> None:
        """Put *entry* in front."""
        self.entries.insert(0, entry)

    def remove(self, entry: LoadedModel) -> None:
        """Take *entry* off the list."""
        self.entries[:] = [other for other in self.entries if other is not entry]

    def forget(self, entry: LoadedModel) -> None:
        """Take *entry* off the list and detach its finalizer, for whoever lets its model go. Outside critical sections."""
        self.remove(entry)
        entry.release()

    def forget_ended(self) -> None:
        """Drop the loaded models whose modules are gone."""
        self._ended.clear()
        for entry in [entry for entry in self.entries if entry.has_ended() or entry.real_model is None]:
            self.forget(entry)

    def has_news(self) -> bool:
        """Whether a module has died since the last :meth:`forget_ended`."""
        return bool(self._ended)

    def leaked(self) -> list[LoadedModel]:
        """Those whose module lives although no patcher for it does."""
        return [entry for entry in self.entries if entry.is_dead()]

    def patchers(self, only_currently_used: bool = False) -> list[Patcher]:
        """The living patchers, in the list's order."""
        found = [entry.model for entry in self.entries if entry.currently_used or not only_currently_used]
        return [patcher for patcher in found if patcher is not None]
