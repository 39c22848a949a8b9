"""Lets node packs register external caches of node results."""

from collections.abc import Callable, Iterator
from typing import Any

from comfy_api.internal.singleton import ProxiedSingleton
from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, register_cache_provider, unregister_cache_provider

__all__ = ["CacheContext", "CacheProvider", "CacheValue", "Caching"]


class _Done:
    """The result of a call on the class: the work is done, and the result may be awaited."""

    def __await__(self) -> Iterator[Any]:
        return iter(())


class _OnClassToo:
    """A coroutine method of instances that does its work at once when it is called on the class."""

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
    """Stop asking *provider* for results."""
    unregister_cache_provider(_checked(provider))


class Caching(ProxiedSingleton):
    """Registers external caches of node results, which several servers can share.

    A provider derives from ``Caching.CacheProvider``. ``await ComfyAPI().caching.register_provider(p)`` registers it;
    ``ComfyAPISync().caching.register_provider(p)`` and ``Caching.register_provider(p)`` do so without await.
    Raises ``TypeError`` for anything that is not a provider.

    ``guards_providers``: whether this server limits providers (their time, their memory and what they are offered), so that they need no
    guard of their own. ``keys_cover_machine``: whether keys cover everything that results depend on, so that equal keys mean equal
    results on every machine. A server whose class lacks one of these attributes does not promise it.
    """

    guards_providers = True
    keys_cover_machine = True

    CacheProvider = CacheProvider
    CacheContext = CacheContext
    CacheValue = CacheValue

    register_provider = _OnClassToo(_register, register_cache_provider)
    unregister_provider = _OnClassToo(_unregister, unregister_cache_provider)
