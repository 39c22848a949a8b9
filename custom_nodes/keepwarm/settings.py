"""The pack's settings: from this core's flags, and from the environment in any server."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .store_urls import BadUrl


@dataclass(frozen=True, slots=True)
class Settings:
    """Which stores to use, in order, how entries are sealed, and whether metrics are published."""

    urls: tuple[str, ...]
    sealing_key: bytes | None
    namespace: str
    publishes_metrics: bool


def read_settings(args: Any, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings from the server's parsed flags, ``--cache-provider`` first, and the environment. Raises ``BadUrl``.

    ``KEEPWARM_CACHE_PROVIDERS`` (URLs, separated by blanks), ``KEEPWARM_CACHE_KEY`` or ``KEEPWARM_CACHE_KEY_FILE``,
    ``KEEPWARM_CACHE_NAMESPACE``, ``KEEPWARM_METRICS``.
    """
    environment = os.environ if environment is None else environment
    urls = [*(getattr(args, "cache_provider", None) or ()), *environment.get("KEEPWARM_CACHE_PROVIDERS", "").split()]
    namespace = getattr(args, "cache_namespace", "") or environment.get("KEEPWARM_CACHE_NAMESPACE", "")
    return Settings(
        tuple(dict.fromkeys(urls)),
        _sealing_key(environment),
        namespace,
        environment.get("KEEPWARM_METRICS", "").lower() in ("1", "true", "yes", "on"),
    )


def _sealing_key(environment: Mapping[str, str]) -> bytes | None:
    path = environment.get("KEEPWARM_CACHE_KEY_FILE")
    if path:
        try:
            with open(path, "rb") as stream:
                return stream.read().strip() or None
        except OSError as error:
            raise BadUrl(f"KEEPWARM_CACHE_KEY_FILE={path} cannot be read: {error}") from None
    return environment.get("KEEPWARM_CACHE_KEY", "").encode("utf-8", "surrogateescape") or None
