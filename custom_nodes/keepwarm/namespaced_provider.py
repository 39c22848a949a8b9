"""For servers whose keys cover names only: another key for each combination of versions, device and the user's namespace."""

import hashlib

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue

from .result_provider import ResultProvider


class NamespacedProvider(CacheProvider):
    """A ``ResultProvider`` that stores everything under the server's key and *namespace* together. Runs on whichever loop calls it."""

    def __init__(self, inner: ResultProvider, namespace: str) -> None:
        self.inner = inner
        self.url = inner.url
        self.store = inner.store
        self.read_only = inner.read_only
        self.measures = inner.measures
        self._namespace = namespace

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        return self.inner.should_cache(context, value)

    async def on_lookup(self, context: CacheContext) -> CacheValue | None:
        return await self.inner.on_lookup(self._own(context))

    async def on_store(self, context: CacheContext, value: CacheValue) -> None:
        await self.inner.on_store(self._own(context), value)

    def renew(self) -> None:
        """Make new connections at the next use."""
        self.inner.renew()

    async def aclose(self) -> None:
        """Close the store."""
        await self.inner.aclose()

    def _own(self, context: CacheContext) -> CacheContext:
        # A namespace from the environment may hold bytes that are no text.
        key = hashlib.sha256(f"{self._namespace}\0{context.cache_key_hash}".encode("utf-8", "surrogatepass")).hexdigest()
        return CacheContext(context.node_id, context.class_type, key)
