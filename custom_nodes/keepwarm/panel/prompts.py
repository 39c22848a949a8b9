"""What prompts used: a point per ended prompt for the chart, and the receipts of the one that runs."""

from collections.abc import Mapping
from typing import Any

MOST_POINTS = 100
HITS = ("ram", "vram", "in use", "ahead", "store")


class Prompts:
    """Reads a server's queue and, where there is one, its RAM model cache. Any thread."""

    def __init__(self, queue: Any, cache: Any) -> None:
        self._queue, self._cache = queue, cache
        self._newest: Any = None
        self._points: list[dict[str, Any]] = []

    def points(self) -> list[dict[str, Any]]:
        """The newest prompts that have ended, oldest first; read again only when another one has ended."""
        newest = next(iter(self._queue.get_history(max_items=1, map_function=_itself)), None)
        if newest != self._newest:
            ended = self._queue.get_history(max_items=MOST_POINTS, map_function=_itself)
            self._points = [point(prompt_id, entry) for prompt_id, entry in ended.items()]
            self._newest = newest
        return self._points

    def current(self) -> dict[str, Any]:
        """The running prompt, or else the one that ended last: its id, whether it runs, and its receipts so far."""
        running = next(iter(self._queue.get_current_queue_volatile()[0]), None)
        prompt_id = self._newest if running is None else running[1]
        receipts = [] if self._cache is None or prompt_id is None else self._cache.receipts(prompt_id)
        return {"id": prompt_id, "running": running is not None, "receipts": receipts}


def point(prompt_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the history's *entry* says of its prompt: models that were there and models that were read, nodes whose results were there.

    *at*: seconds since the epoch, None where the history does not say.
    """
    receipts = entry.get("models") or []
    messages = dict((entry.get("status") or {}).get("messages") or [])
    times = [data["timestamp"] for data in messages.values() if isinstance(data, dict) and "timestamp" in data]
    hits = [receipt for receipt in receipts if receipt["tier"] in HITS]
    reads = [receipt for receipt in receipts if receipt["tier"] == "disk"]
    return {
        "id": prompt_id,
        "at": max(times) / 1000 if times else None,
        "hits": len(hits),
        "reads": len(reads),
        "saved_s": sum(receipt["seconds"] for receipt in hits),
        "read_s": sum(receipt["seconds"] for receipt in reads),
        "cached_nodes": len(messages.get("execution_cached", {}).get("nodes", ())),
        "nodes": len(entry["prompt"][2]),
    }


def _itself(entry: Any) -> Any:
    """The history copies entries deeply unless it is given a function; nothing here changes them."""
    return entry
