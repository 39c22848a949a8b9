"""Putting the pack to work in whichever host loads it."""

import importlib
import importlib.util
import logging
from typing import Any

from comfy_api.latest import ComfyAPI

from .detached_provider import DetachedProvider
from .entry_format import Sealer
from .file_store import DEFAULT_CAP_BYTES, FileStore
from .object_store import ObjectStore
from .redis_store import RedisStore
from .result_provider import ResultProvider
from .routes import add_routes
from .settings import Settings, read_settings
from .store_urls import FILE, REDIS, BadUrl, StoreUrl, parse_url, redacted

logger = logging.getLogger(__name__)

DEFAULT_MAX_VALUE_MB = {"file": 4096.0, "redis": 512.0, "objects": 2048.0}


async def activate() -> list[Any]:
    """Register a provider for each URL in the settings and add the routes; returns the providers. A bad URL is logged and left out."""
    args = importlib.import_module("comfy.cli_args").args
    try:
        settings = read_settings(args)
    except BadUrl as error:
        logger.error("Keepwarm shares no results: %s", error)
        return []
    providers = [provider for provider in (_provider_or_none(url, settings) for url in settings.urls) if provider is not None]
    for provider in providers:
        await ComfyAPI().caching.register_provider(provider)
        logger.info("Results are shared through %s%s", provider.url, " (only read)" if getattr(provider, "read_only", False) else "")
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    if server is not None:
        add_routes(server.routes, providers, settings.publishes_metrics)
    return providers


def make_provider(url: StoreUrl, settings: Settings, is_guarded: bool) -> Any:
    """The provider for *url*. *is_guarded*: the host keeps providers from doing harm. Raises ``BadUrl``."""
    store: Any
    if url.scheme in FILE:
        store = FileStore(url.path, int(url.number("max_gb", DEFAULT_CAP_BYTES / 1024**3) * 1024**3))
    elif url.scheme in REDIS:
        store = RedisStore(url)
    else:
        store = ObjectStore(url)
    max_value_bytes = int(url.number("max_value_mb", DEFAULT_MAX_VALUE_MB[store.name]) * 1024**2)
    provider = ResultProvider(store, url.text, Sealer(settings.sealing_key), url.is_read_only, max_value_bytes)
    return provider if is_guarded else DetachedProvider(provider, _deployment(settings.namespace))


def is_host_guarding() -> bool:
    """Whether the host has the runtime that bounds what providers do and computes hermetic keys."""
    return importlib.util.find_spec("comfy_execution.shared_keys.keys") is not None


def _provider_or_none(text: str, settings: Settings) -> Any:
    try:
        return make_provider(parse_url(text), settings, is_host_guarding())
    except BadUrl as error:
        logger.error("A cache provider is left out: %s", error)
    except ValueError as error:
        logger.error("A cache provider is left out: %s: %s", redacted(text), error)
    return None


def _deployment(namespace: str) -> str:
    """What keys of a host that knows names only must cover besides: versions, device and the user's namespace."""
    version = getattr(importlib.import_module("comfyui_version"), "__version__", "")
    torch = importlib.import_module("torch")
    device = importlib.import_module("comfy.model_management").get_torch_device().type
    return f"{version}|{torch.__version__}|{device}|{namespace}"
