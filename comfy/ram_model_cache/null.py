"""The RAM model cache of size 0. Portable: standard library only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy.ram_model_cache.models import LoadedModel
from comfy.ram_model_cache.values import DeviceEvent, as_loaded


class NullRamModelCache:
    """Every load runs as if there were no cache: no model is kept, no thread started, no record made. Stateless; any thread."""

    enabled = False

    def fetch(
        self, wanted: Mapping[Hashable, Any], load: Callable[[list[Hashable]], Mapping[Hashable, Any]], hold: bool = False
    ) -> dict[Hashable, Any]:
        """What *load* returns for all of *wanted*, untouched."""
        return {key: as_loaded(value).value for key, value in load(list(wanted)).items()}

    @contextmanager
    def critical_section(self) -> Iterator[None]:
        """Nothing to protect."""
        yield

    def reclaim(self, loaded_model: LoadedModel) -> DeviceEvent:
        """Never one of the cache's."""
        return DeviceEvent.NOT_KEPT

    retain = reclaim

    def set_held(self, key: Hashable, held: bool) -> bool:
        """Nothing is cached."""
        return False

    def discard(self, key: Hashable, why: str) -> None:
        """Nothing is cached."""

    def is_held(self, key: Hashable) -> bool:
        """Nothing is cached."""
        return False

    def remeasure(self, loaded_model: LoadedModel) -> None:
        """Nothing is measured."""

    def safe_point(self) -> None:
        """Nothing to do."""

    close = safe_point

    def begin_prompt(self, prompt_id: str) -> None:
        """No record is kept."""

    def note_bypass(self, label: str, reason: str, tier: str = "bypass") -> None:
        """No record is kept."""

    def end_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """No receipts."""
        return []

    receipts = end_prompt

    def clear(self, why: str = "") -> int:
        """Nothing to free."""
        return 0

    def resettle(self, settings: Any, renamed: Any) -> None:
        """Nothing has to fit."""

    def stats(self) -> None:
        """No figures."""

    def entries(self, describe: Callable[..., Any] | None = None) -> list[Any]:
        """Nothing."""
        return []

    def check(self) -> list[str]:
        """Nothing can be wrong."""
        return []
