"""Has the port that Ray Serve opens in every replica listen on the node's own address alone."""

import logging
from typing import Any

import ray

log = logging.getLogger(__name__)

EVERYWHERE = "[::]:0"


def keep_to_own_address() -> None:
    """Call it in a replica's ``__init__``. Serve (2.60) opens the port right after that, on all interfaces whatever the node's address is.

    The port asks for the token either way. Calls of the dispatcher come through it (``remote_fleet.directly``).
    """
    from ray.serve._private import replica

    original = getattr(replica, "add_port_to_grpc_server", None)
    if original is None:
        log.error("This version of Ray opens its replicas' ports another way, so they may listen on all interfaces: use Ray 2.60")
        return
    node = ray.util.get_node_ip_address()
    own = f"[{node}]:0" if ":" in node else f"{node}:0"

    def on_own_address(server: Any, address: str) -> Any:
        return original(server, own if address == EVERYWHERE else address)

    replica.add_port_to_grpc_server = on_own_address
