"""What a store of results must be able to do. Entries are small and found by cache key, blobs are large and found by digest."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .entry_format import Blob
from .intake import Intake


class StoreFull(OSError):
    """The store has no room and cannot make any."""


class BlobStore(Protocol):
    """A place shared by several processes. All methods run on one event loop, must not block it for long, and raise ``OSError`` (or a
    library's error) when the place cannot be reached. Nothing that was interrupted may be visible later."""

    name: str

    async def get_entry(self, key: str, intake: Intake) -> Any:
        """The bytes of the entry under *key*, or None. *intake* is asked before much is read; raises ``Rejected`` for what is no entry.

        Something else under the key's name is no error of the store: it is rejected, and can be stored over.
        """

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """The bytes of each blob (digest -> size), or None when one is not there. Never more bytes than the size says.

        Raises ``Damaged`` for something else under a blob's name.
        """

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Keep an entry, given in parts, after all its blobs."""

    async def discard(self, digests: Iterable[str]) -> None:
        """Remove damaged blobs, so that they can be stored again."""

    def renew(self) -> None:
        """Use new connections from now on. Any thread."""

    async def aclose(self) -> None:
        """Close connections."""
