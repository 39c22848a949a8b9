"""Ray clusters on loopback for tests: a head, and nodes that join it."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time

import psutil
from live_server import ROOT

HEAD = """
import sys
from ray.scripts.scripts import main
sys.argv[1:] = ["start", "--block", "--head", *sys.argv[1:], "--object-store-memory=100000000", "--disable-usage-stats"]
main()
"""
# Not by Ray's command: it lets nodes join only where everything listens on all interfaces.
JOIN = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams
settings = RayParams(gcs_address=sys.argv[1], num_cpus=1, object_store_memory=100000000, node_ip_address="127.0.0.1")
node = Node(settings, head=False, shutdown_at_exit=True)
signal.pause()
"""


def cluster_environment(folder, temporary):
    """The variables that every process of a cluster gets, with a token in *folder*; Ray's own files go to *temporary*, a short path."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback
        "RAY_TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def ray_node(code, *arguments, base=None):
    """A process that is a Ray node; *base* is its base directory."""
    environment = {**os.environ, **({} if base is None else {"FLEET_BASE_DIRECTORY": str(base)})}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL)


def wait_for_port(port, timeout_s=200.0):
    """Return when somebody listens there."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing came up on port {port}")


def end(process):
    """End a node and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        for one in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
