"""Where each model of a prompt came from, in the prompt's history: ``models``, a list of what was read, found or let go."""

import functools
from collections.abc import Callable
from typing import Any

from comfy.ram_models import ram_models
from comfy.ram_models.loaders import log_event

HISTORY_NAME = "models"
MOST = 1000


class Receipts:
    """Collects what is told between ``begin`` and ``end``, beside the log."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def __call__(self, event: str, label: str, size_bytes: int, seconds: float) -> None:
        """One thing that happened to a model. Any thread."""
        log_event(event, label, size_bytes, seconds)
        self._rows.append({"model": label, "event": event, "bytes": size_bytes, "seconds": round(seconds, 3)})
        del self._rows[:-MOST]

    def take(self) -> list[dict[str, Any]]:
        """What was told since the last call."""
        rows, self._rows = self._rows, []
        return rows


def with_receipts(execute_async: Callable[..., Any]) -> Callable[..., Any]:
    """Of ``PromptExecutor.execute_async``."""
    if not ram_models.cache.cap_bytes:
        return execute_async
    receipts = ram_models.told = Receipts()

    @functools.wraps(execute_async)
    async def execute_prompt(executor: Any, *args: Any, **kwargs: Any) -> Any:
        receipts.take()
        before = getattr(executor, "history_result", None)
        try:
            return await execute_async(executor, *args, **kwargs)
        finally:
            rows = receipts.take()
            history: Any = getattr(executor, "history_result", None)
            if rows and history is not before:
                history[HISTORY_NAME] = rows

    return execute_prompt
