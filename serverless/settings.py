"""Reads a worker's settings from the environment, once."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serverless.result_storage import BucketSettings

DEFAULT_CLIENT_ID = "keepwarm-worker"
DEFAULT_HOST = "127.0.0.1:8188"
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


class BadSetting(ValueError):
    """An environment variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All settings of a worker. Times in seconds; *job_timeout_s* 0 means no limit.

    *reconnect_attempts* and *reconnect_delay_s*: how often and after what pause a server that cannot be reached is tried again during a
    job. *available_retries* 0: while the process in *pid_file* lives, or 500 times if there is no such file.
    """

    host: str = DEFAULT_HOST
    client_id: str = DEFAULT_CLIENT_ID
    comfy_org_api_key: str | None = None
    refresh_worker: bool = False
    job_timeout_s: float = 0.0
    poll_interval_s: float = 3.0
    reconnect_attempts: int = 5
    reconnect_delay_s: float = 3.0
    websocket_trace: bool = False
    available_interval_s: float = 0.05
    available_retries: int = 0
    pid_file: str = "/tmp/comfyui.pid"
    network_volume_debug: bool = False
    normalize: bool = True
    bucket: BucketSettings | None = None

    def __post_init__(self) -> None:
        if min(self.job_timeout_s, self.reconnect_attempts, self.reconnect_delay_s, self.available_retries) < 0:
            raise BadSetting("times and counts of a worker cannot be negative")
        if self.poll_interval_s <= 0 or self.available_interval_s <= 0:
            raise BadSetting("the intervals at which a server is asked must be above zero")

    @property
    def base_url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return (self.host if "://" in self.host else f"http://{self.host}").rstrip("/")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "WorkerSettings":
        """Read every variable; empty ones count as not set. Raises ``BadSetting``."""
        read = _Reader(environment)
        return cls(
            host=read.text("COMFY_HOST", DEFAULT_HOST),
            client_id=read.text("COMFY_CLIENT_ID", DEFAULT_CLIENT_ID),
            comfy_org_api_key=read.text("COMFY_ORG_API_KEY", "") or None,
            refresh_worker=read.flag("REFRESH_WORKER"),
            job_timeout_s=read.number("KEEPWARM_JOB_TIMEOUT_S", 0.0),
            poll_interval_s=read.number("KEEPWARM_POLL_INTERVAL_S", 3.0),
            reconnect_attempts=int(read.number("WEBSOCKET_RECONNECT_ATTEMPTS", 5)),
            reconnect_delay_s=read.number("WEBSOCKET_RECONNECT_DELAY_S", 3.0),
            websocket_trace=read.flag("WEBSOCKET_TRACE"),
            available_interval_s=read.number("COMFY_API_AVAILABLE_INTERVAL_MS", 50) / 1000,
            available_retries=int(read.number("COMFY_API_AVAILABLE_MAX_RETRIES", 0)),
            pid_file=read.text("COMFY_PID_FILE", "/tmp/comfyui.pid"),
            network_volume_debug=read.flag("NETWORK_VOLUME_DEBUG"),
            normalize=read.flag("KEEPWARM_NORMALIZE", True),
            bucket=_bucket(read),
        )


def _bucket(read: "_Reader") -> BucketSettings | None:
    endpoint = read.text("BUCKET_ENDPOINT_URL", "")
    if not endpoint:
        return None
    return BucketSettings(
        endpoint_url=endpoint,
        access_key_id=read.text("BUCKET_ACCESS_KEY_ID", ""),
        secret_access_key=read.text("BUCKET_SECRET_ACCESS_KEY", ""),
        name=read.text("BUCKET_NAME", "") or time.strftime("%m-%y"),
        prefix=read.text("BUCKET_PREFIX", "").strip("/"),
        region=read.text("BUCKET_REGION", ""),
        expires_s=int(read.number("BUCKET_URL_EXPIRES_S", 604_800)),
    )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def flag(self, name: str, default: bool = False) -> bool:
        text = self.text(name, "")
        return text.lower() in TRUE_WORDS if text else default

    def number(self, name: str, default: float) -> float:
        text: Any = self.text(name, "")
        try:
            return float(text) if text else default
        except ValueError:
            raise BadSetting(f"{name}={text!r} is not a number; unset it for the default {default:g}") from None
