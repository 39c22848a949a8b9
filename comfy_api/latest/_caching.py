"""External caches for node results, as node packs register them."""

from collections.abc import Callable, Iterator
from typing import Any

from comfy_api.internal.singleton import ProxiedSingleton
from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, register_cache_provider, unregister_cache_provider

__all__ = ["CacheContext", "CacheProvider", "CacheValue", "Caching"]


class _Done:
    """What a call on the class returns: the work is done, and awaiting it is allowed."""

    def __await__(self) -> Iterator[Any]:
        return iter(())


class _OnClassToo:
    """A coroutine method of instances that, called on the class itself, does its work at once."""

    def __init__(self, async_method: Callable[..., Any], immediate: Callable[[CacheProvider], None]) -> None:
        self.async_method = async_method
        self.immediate = immediate
        self.__doc__ = async_method.__doc__

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else self.async_method.__get__(instance, owner)

    def __call__(self, provider: CacheProvider) -> _Done:
        self.immediate(_checked(provider))
        return _Done()


def _checked(provider: Any) -> CacheProvider:
    if not isinstance(provider, CacheProvider):
        raise TypeError(f"a cache provider is an object whose class derives from Caching.CacheProvider, not {provider!r}")
    return provider


async def _register(self: Any, provider: CacheProvider) -> None:
    """Ask *provider* for results from now on, after those registered before it."""
    register_cache_provider(_checked(provider))


async def _unregister(self: Any, provider: CacheProvider) -> None:
    """Ask *provider* no longer."""
    unregister_cache_provider(_checked(provider))


class Caching(ProxiedSingleton):
    """Registers external caches of node results, which several servers may share.

    A provider derives from ``Caching.CacheProvider``. ``await ComfyAPI().caching.register_provider(p)`` registers it,
    ``ComfyAPISync().caching.register_provider(p)`` does so without await, and so does ``Caching.register_provider(p)``.
    Raises ``TypeError`` for anything that is not a provider.

    ``guards_providers``: whether this server bounds what providers do (time, memory, what they are offered), so that they need no
    guard of their own. ``keys_cover_machine``: whether keys cover everything that results depend on, so that equal keys mean equal
    results on any machine. A server whose class lacks one of them does not do that.
    """

    guards_providers = True
    keys_cover_machine = True

    CacheProvider = CacheProvider
    CacheContext = CacheContext
    CacheValue = CacheValue

    register_provider = _OnClassToo(_register, register_cache_provider)
    unregister_provider = _OnClassToo(_unregister, unregister_cache_provider)
