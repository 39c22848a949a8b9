"""How a gateway is set up."""

import argparse
import os
from dataclasses import dataclass, field

from comfy.units import MIB


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """*folder* holds what is uploaded and what users save. *own_url*: where servers reach this gateway; empty: where it listens.

    Uploads are put into the places of *cache_providers* too, where supervised servers find them.

    *allowed_hosts* and *cors_origin* mean what ``--allowed-host`` and ``--enable-cors-header`` mean for one server.
    """

    folder: str
    listen: str = "127.0.0.1"
    port: int = 8188
    own_url: str = ""
    max_upload_bytes: int = 100 * MIB
    allowed_hosts: tuple[str, ...] = ()
    cors_origin: str | None = None
    web_root: str | None = field(default=None)
    cache_providers: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The URL that servers and people on this machine use."""
        first = self.listen.partition(",")[0].strip()
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(first, f"[{first}]" if ":" in first else first)
        return self.own_url.rstrip("/") or f"http://{host}:{self.port}"

    def directory(self, name: str) -> str:
        """A folder below ``folder``."""
        return os.path.join(self.folder, name)

    def as_server_flags(self) -> argparse.Namespace:
        """What the middlewares of a server read of its flags."""
        return argparse.Namespace(
            listen=self.listen,
            allowed_host=list(self.allowed_hosts),
            enable_cors_header=self.cors_origin,
            enable_compress_response_body=False,
            disable_api_nodes=False,
        )
