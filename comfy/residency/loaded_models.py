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
        self.items: list[LoadedModel] = []
        self._ended: deque[None] = deque()

    def find(self, patcher: Patcher) -> LoadedModel | None:
        """The loaded model that *patcher* itself, and no clone of it, is."""
        return next((loaded_model for loaded_model in self.items if loaded_model.model is patcher), None)

    def new(self, patcher: Patcher) -> LoadedModel:
        """A loaded model for *patcher*, not yet on the list."""
        return LoadedModel(patcher, self._ended)

    def add(self, loaded_model: LoadedModel) -> None:
        """Put *loaded_model* in front."""
        self.items.insert(0, loaded_model)

    def remove(self, loaded_model: LoadedModel) -> None:
        """Take *loaded_model* off the list."""
        self.items[:] = [other for other in self.items if other is not loaded_model]

    def forget(self, loaded_model: LoadedModel) -> None:
        """Take *loaded_model* off the list and detach its finalizer, for whoever lets its model go. Outside critical sections."""
        self.remove(loaded_model)
        loaded_model.release()

    def forget_ended(self) -> None:
        """Drop the loaded models whose modules are gone."""
        self._ended.clear()
        for loaded_model in [loaded_model for loaded_model in self.items if loaded_model.has_ended() or loaded_model.real_model is None]:
            self.forget(loaded_model)

    def has_news(self) -> bool:
        """Whether a module has died since the last :meth:`forget_ended`."""
        return bool(self._ended)

    def leaked(self) -> list[LoadedModel]:
        """Those whose module lives although no patcher for it does."""
        return [loaded_model for loaded_model in self.items if loaded_model.is_dead()]

    def patchers(self, only_currently_used: bool = False) -> list[Patcher]:
        """The living patchers, in the list's order."""
        found = [loaded_model.model for loaded_model in self.items if loaded_model.currently_used or not only_currently_used]
        return [patcher for patcher in found if patcher is not None]
