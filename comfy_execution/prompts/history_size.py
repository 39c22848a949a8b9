"""How much memory the history takes, so that it is bounded by bytes as well as by count."""

from collections.abc import Mapping
from typing import Any

MAXIMUM_HISTORY_BYTES = 512 << 20
# For leaves of other types.
_UNKNOWN_BYTES = 64


def tree_bytes(value: Any, most_bytes: int = MAXIMUM_HISTORY_BYTES) -> int:
    """About how many bytes the containers and leaves of a JSON-like tree take; each object counts once. Stops above *most_bytes*.

    Does not recurse, and runs no code of the leaves: what is not plain JSON counts by its type.
    """
    total, left = 0, [value]
    seen: set[int] = set()
    while left and total <= most_bytes:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        kind = type(item)
        total += _own_bytes(item, kind)
        if issubclass(kind, dict):
            left.extend(dict.keys(item))
            left.extend(dict.values(item))
        elif issubclass(kind, list):
            left.extend(list.__iter__(item))
        elif issubclass(kind, tuple):
            left.extend(tuple.__iter__(item))
    return total


def _own_bytes(item: Any, kind: type) -> int:
    for plain in (str, dict, list, tuple, bytes, int, float):
        if issubclass(kind, plain):
            return plain.__sizeof__(item)
    return _UNKNOWN_BYTES


class HistorySize:
    """The bytes of each entry of a history. Not locked: the queue calls it with its lock held.

    Packs edit the history as they like, so an entry may be gone without notice; its bytes are then let go at the next ``trim``.
    """

    def __init__(self) -> None:
        self._entry_bytes: dict[str, int] = {}
        self._total_bytes = 0

    def note(self, prompt_id: str, entry_bytes: int) -> None:
        """An entry of *entry_bytes* stands in the history under that id, instead of what stood there."""
        self.forget(prompt_id)
        self._entry_bytes[prompt_id] = entry_bytes
        self._total_bytes += entry_bytes

    def forget(self, prompt_id: str) -> None:
        """The entry is gone; unknown ids are ignored."""
        self._total_bytes -= self._entry_bytes.pop(prompt_id, 0)

    def clear(self) -> None:
        """Every entry is gone."""
        self._entry_bytes, self._total_bytes = {}, 0

    @property
    def total_bytes(self) -> int:
        """The bytes of all entries that were noted."""
        return self._total_bytes

    def trim(self, history: dict[str, Any], most_entries: int, most_bytes: int) -> None:
        """Take the oldest entries out of *history* until both bounds hold; the newest one stays whatever its size."""
        if len(self._entry_bytes) > len(history):
            self._follow(history)
        while len(history) > 1 and (len(history) > most_entries or self._total_bytes > most_bytes):
            oldest = next(iter(history))
            del history[oldest]
            self.forget(oldest)

    def _follow(self, history: Mapping[str, Any]) -> None:
        self._entry_bytes = {prompt_id: size for prompt_id, size in self._entry_bytes.items() if prompt_id in history}
        self._total_bytes = sum(self._entry_bytes.values())
