"""What preloading is asked to do: by this core's flags, and by the environment in any server."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENVIRONMENT = {
    "preload_config": "KEEPWARM_PRELOAD_CONFIG",
    "preload_only": "KEEPWARM_PRELOAD_ONLY",
    "save_preload_config": "KEEPWARM_SAVE_PRELOAD_CONFIG",
    "warmup_prompt": "KEEPWARM_WARMUP_PROMPT",
    "snapshot_start": "KEEPWARM_SNAPSHOT_START",
}
_YES = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class PreloadOptions:
    """The files' names (None: not asked for); *ends*: after loading; *waits*: for the restore before it touches an accelerator."""

    config: str | None = None
    check_only: bool = False
    ends: bool = False
    save_to: str | None = None
    warmup: str | None = None
    waits: bool = False


def read_options(args: Any, environment: Mapping[str, str] | None = None) -> PreloadOptions:
    """The options from the server's parsed flags, which come first, and the environment. Raises ``SystemExit`` for a contradiction."""
    environment = os.environ if environment is None else environment

    def given(name: str) -> Any:
        return getattr(args, name, None) or environment.get(ENVIRONMENT[name], "")

    def is_on(name: str) -> bool:
        value = given(name)
        return value.lower() in _YES if isinstance(value, str) else bool(value)

    check_only = bool(getattr(args, "preload_check", False))
    options = PreloadOptions(
        given("preload_config") or None,
        check_only,
        is_on("preload_only"),
        given("save_preload_config") or None,
        given("warmup_prompt") or None,
        is_on("snapshot_start"),
    )
    for flag, is_asked in (("--preload-check", check_only), ("--preload-only", options.ends)):
        if is_asked and options.config is None:
            raise SystemExit(f"{flag} needs a file: --preload-config FILE, or {ENVIRONMENT['preload_config']}")
    return options
