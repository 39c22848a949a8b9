"""What Ray reads from the environment, which must be set before it is imported and holds for every process of the cluster."""

import os
import secrets
import stat
from collections.abc import MutableMapping
from pathlib import Path

LOOPBACK = "127.0.0.1"


def prepare(folder: Path, environment: MutableMapping[str, str] = os.environ, loopback: bool = True) -> Path:
    """Turn usage reports off and token authentication on, with a token of this fleet's own in *folder* unless one is given already.

    *loopback*: everything listens on 127.0.0.1 only, so the cluster is this machine alone. Returns the token's file. Raises
    ``PermissionError`` for a token that others can read.
    """
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    environment["RAY_AUTH_MODE"] = "token"
    environment.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # it logs to files too
    # Ray's default is 15, which servers and gateways would inherit: they would wait for anything else that the machine does.
    environment.setdefault("RAY_worker_niceness", "0")
    # It would end Ray's own processes when the machine's memory is nearly full, and with them the servers, which make room themselves.
    environment.setdefault("RAY_memory_monitor_refresh_ms", "0")
    if loopback:
        # Ray's own name for it: without clusters of several machines a node's address is the loopback one.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or folder / "ray-token")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PermissionError(f"{path} holds the fleet's token and others can read it; chmod 600 it")
    environment["RAY_AUTH_TOKEN_PATH"] = str(path)
    return path
