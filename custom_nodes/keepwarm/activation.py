"""Putting the pack to work in whichever server loads it."""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import Caching, ComfyAPI
from comfy_execution.cache_provider import CacheProvider

from .detached_provider import DetachedProvider
from .entry_format import Sealer
from .namespaced_provider import NamespacedProvider
from .result_provider import ResultProvider
from .routes import add_routes
from .settings import Settings, read_settings
from .store_urls import BadUrl, StoreUrl, parse_url, redacted
from .stores import max_value_bytes, open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerTraits:
    """What the server that loads the pack does for its cache providers by itself.

    *guards*: it bounds how long they are waited for, lets stores outlive the prompt and offers no results that only look shareable.
    *covers_machine*: its keys cover versions, device, precision and namespace, so equal keys mean equal results on any machine.
    """

    guards: bool
    covers_machine: bool


def server_traits() -> ServerTraits:
    """What this server declares in its ``Caching``; a plain ComfyUI declares nothing."""
    return ServerTraits(bool(getattr(Caching, "guards_providers", False)), bool(getattr(Caching, "keys_cover_machine", False)))


async def activate() -> list[Any]:
    """Register a provider for each URL in the settings and add the routes; returns the providers. A bad URL is logged and left out."""
    args = importlib.import_module("comfy.cli_args").args
    try:
        settings = read_settings(args)
    except BadUrl as error:
        log.error("Keepwarm shares no results: %s", error)
        return []
    providers = [provider for provider in (_provider_or_none(url, settings) for url in settings.urls) if provider is not None]
    for provider in providers:
        await ComfyAPI().caching.register_provider(provider)
        log.info("Results are shared through %s%s", provider.url, " (only read)" if getattr(provider, "read_only", False) else "")
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    if server is not None:
        add_routes(server.routes, providers, settings.publishes_metrics)
    return providers


def make_provider(url: StoreUrl, settings: Settings, server: ServerTraits) -> CacheProvider:
    """The provider for *url*, with around it what *server* does not do itself. Raises ``BadUrl``."""
    store = open_store(url)
    provider = ResultProvider(store, url.text, Sealer(settings.sealing_key), url.is_read_only, max_value_bytes(url, store))
    if server.guards and server.covers_machine:
        return provider
    # Only a server that guards providers knows keys of its own that cover the machine.
    namespaced = NamespacedProvider(provider, _deployment(settings.namespace))
    return namespaced if server.guards else DetachedProvider(namespaced)


def _provider_or_none(text: str, settings: Settings) -> Any:
    try:
        return make_provider(parse_url(text), settings, server_traits())
    except BadUrl as error:
        log.error("A cache provider is left out: %s", error)
    except ValueError as error:
        log.error("A cache provider is left out: %s: %s", redacted(text), error)
    return None


def _deployment(namespace: str) -> str:
    """What must be added to keys that cover names only: versions, device and the user's namespace."""
    version = getattr(importlib.import_module("comfyui_version"), "__version__", "")
    torch = importlib.import_module("torch")
    device = importlib.import_module("comfy.model_management").get_torch_device().type
    return f"{version}|{torch.__version__}|{device}|{namespace}"
