"""The features that this server announces to clients, and those that connected clients announce."""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from comfy.cli_args import args
from comfy.units import MIB

log = logging.getLogger(__name__)


class FeatureFlagInfo(TypedDict):
    """A flag that ``--feature-flag`` knows: its ``type`` (bool, int, float or str), default and meaning."""

    type: str
    default: Any
    description: str


# Launchers read these with --list-feature-flags to offer switches for them.
CLI_FEATURE_FLAG_REGISTRY: dict[str, FeatureFlagInfo] = {
    "show_signin_button": {"type": "bool", "default": False, "description": "Offer to sign in on the page to people who are not signed in"},
    "enable_telemetry": {"type": "bool", "default": False, "description": "Tell the page that it may collect usage data"},
}


def _strict_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {"bool": _strict_bool, "int": int, "float": float}


def _coerce_flag_value(key: str, raw_value: str) -> Any:
    """Convert *raw_value* to the type that the registry gives *key*; unknown keys stay text. Raises ``ValueError``."""
    kind = CLI_FEATURE_FLAG_REGISTRY[key]["type"] if key in CLI_FEATURE_FLAG_REGISTRY else "str"
    return _PARSERS.get(kind, str)(raw_value)


def _parse_cli_feature_flags() -> dict[str, Any]:
    """The flags given as ``--feature-flag KEY[=VALUE]``; invalid ones are left out with a warning."""
    flags: dict[str, Any] = {}
    for given in getattr(args, "feature_flag", None) or ():
        key, has_value, text = (part.strip() for part in given.partition("="))
        if not key:
            continue
        try:
            flags[key] = _coerce_flag_value(key, text if has_value else "true")
        except ValueError as error:
            log.warning("--feature-flag %s: %s; dropping this flag", key, error)
    return flags


def _core_feature_flags() -> dict[str, Any]:
    return {
        "supports_preview_metadata": True,
        "supports_model_type_tags": True,
        "max_upload_size": round(args.max_upload_size * MIB),
        "extension": {"manager": {"supports_v4": True}},
        "node_replacements": True,
        "assets": False,
    }


# One object for the life of the process; packs may add to it. Flags of the command line cannot change the server's own features.
SERVER_FEATURE_FLAGS: dict[str, Any] = {**_parse_cli_feature_flags(), **_core_feature_flags()}


def get_server_features() -> dict[str, Any]:
    """A copy of the features that the server announces in ``/features`` and in the ``feature_flags`` message."""
    return copy.deepcopy(SERVER_FEATURE_FLAGS)


def get_connection_feature(sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str, default: Any = False) -> Any:
    """The value that client *sid* announced for *feature_name*, or *default* if there is none or the client is not connected."""
    flags = sockets_metadata.get(sid, {}).get("feature_flags")
    return flags.get(feature_name, default) if isinstance(flags, Mapping) else default


def supports_feature(sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str) -> bool:
    """Whether client *sid* announced exactly ``true`` for *feature_name*."""
    return get_connection_feature(sockets_metadata, sid, feature_name) is True
