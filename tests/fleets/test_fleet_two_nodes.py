"""Two Ray nodes with model folders of their own, on this machine: minutes, so not in CI."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest
from fleet_setup import has_ray, make_base, picture
from live_server import ROOT, free_port
from picture_prompts import text_to_picture
from test_fleet_on_ray import UpFleet

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="Ray Serve is not installed (requirements-fleet.txt), or this is not Linux"),
    pytest.mark.skipif(not os.environ.get("KEEPWARM_FLEET"), reason="takes minutes and two gigabytes; KEEPWARM_FLEET=1 runs it"),
    pytest.mark.timeout(1800),
    pytest.mark.slow,
]


HEAD = """
import sys
from ray.scripts.scripts import main
sys.argv[1:] = ["start", "--block", "--head", *sys.argv[1:], "--include-dashboard=false", "--num-cpus=1",
                "--object-store-memory=100000000", "--disable-usage-stats"]
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


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A head and a second node, each with ``same.safetensors`` of other contents and a model that the other lacks; gives the address."""
    bases = [make_base(tmp_path / name) for name in ("first", "second")]
    for base, own, other in ((bases[0], "m0", "m1"), (bases[1], "m1", "m0")):
        checkpoints = base / "models" / "checkpoints"
        shutil.copy(checkpoints / f"{own}.safetensors", checkpoints / "same.safetensors")
        (checkpoints / f"{other}.safetensors").unlink()
    token, port = tmp_path / "token", free_port()
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback
        "RAY_TMPDIR": str(tmp_path.parent.parent / "r"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    address = f"127.0.0.1:{port}"
    started = []
    try:
        started.append(ray_node(HEAD, f"--port={port}", base=bases[0]))
        wait_for_port(port)
        started.append(ray_node(JOIN, address, base=bases[1]))
        yield address
    finally:
        for process in reversed(started):
            end(process)


def ray_node(code, argument, base):
    """A process that is a Ray node with *base* as its base directory."""
    environment = {**os.environ, "FLEET_BASE_DIRECTORY": str(base)}
    return subprocess.Popen([sys.executable, "-c", code, argument], env=environment, stdout=subprocess.DEVNULL)


def wait_for_port(port, timeout_s=200.0):
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise AssertionError("the head of the cluster did not come up")


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


def test_jobs_go_where_their_files_are_and_one_name_of_two_contents_is_two_files(nodes, tmp_path):
    fleet = UpFleet(tmp_path, 2, "--ram-model-cache-mb", "100", own=("--address", nodes))
    try:
        fleet.wait_until_up()
        for model in (0, 1):
            entry = fleet.run(picture(model, 1))
            assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])
        reads = []
        for seed in (1, 2, 3):
            entry = fleet.run(text_to_picture("same.safetensors", seed, "a seven"))
            reads.append(sum(receipt["tier"] == "disk" for receipt in entry.get("models") or ()))
        assert reads[0] == 3 and reads[1:] == [0, 0], "read once, on the server where the second and third go too"
    finally:
        fleet.end()
