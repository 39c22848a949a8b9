"""What the gateway announces to clients: what its servers can do, with limits of its own."""

import copy
from typing import Any

from comfy_api import feature_flags
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import ServerSilent, Upstream
from fleet.interface import NoServer


class ServerFeatures:
    """The features of the first server. Kept, so that they can be told at once; ``refresh`` asks anew."""

    def __init__(self, servers: ServerList, upstream: Upstream, max_upload_bytes: int) -> None:
        self._servers, self._upstream = servers, upstream
        # The gateway takes uploads itself, and keeps no assets in ComfyUI's sense.
        self._own = {"max_upload_size": max_upload_bytes, "assets": False}
        self._told: dict[str, Any] = feature_flags.get_server_features()

    def all(self) -> dict[str, Any]:
        """A copy, as ``/features`` and the ``feature_flags`` message tell it."""
        return copy.deepcopy({**self._told, **self._own})

    async def refresh(self) -> None:
        """Ask the first server; what was known stays if it cannot be asked."""
        try:
            told = await self._upstream.get_json(self._servers.first()[1], "/features")
        except (NoServer, ServerSilent):
            return
        if isinstance(told, dict):
            self._told = told
