"""The files that queued prompts name, as the cache plans with them. Portable: standard library only."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator


class PendingFiles:
    """Real paths in the order in which they will be asked for; whether a model is among them takes no search."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = tuple(paths)
        self._named = frozenset(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def name(self, key: Hashable) -> bool:
        """Whether they name a file that the model under *key* is read from."""
        return not self._named.isdisjoint(getattr(key, "paths", ()))
