"""What happens to models between two prompts."""

from collections.abc import Callable
from typing import Protocol


class Models(Protocol):
    """``comfy.model_management``, whose functions node packs may replace."""

    def unload_all_models(self) -> None:
        """Move every model off every device."""

    def soft_empty_cache(self, force: bool = False) -> None:
        """Give cached memory back to the system."""


class ModelUpkeep:
    """Does it through *models*; as long as *torch_is_imported* says no there are no models, and nothing is made to look for some.

    *release* gives back the memory of dropped weights. Used by the prompt worker's thread.
    """

    def __init__(self, models: Models, release: Callable[[], int], torch_is_imported: Callable[[], bool]) -> None:
        self._models, self._release, self._torch_is_imported = models, release, torch_is_imported

    def unload_models(self) -> None:
        """Move every model off every device."""
        if self._torch_is_imported():
            self._models.unload_all_models()

    def trim(self) -> None:
        """Give back what the devices' allocators hold and no model uses."""
        if self._torch_is_imported():
            self._models.soft_empty_cache()

    def release_spare(self) -> None:
        """Give back the memory of dropped weights that no load has taken over."""
        self._release()
