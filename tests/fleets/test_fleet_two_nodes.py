"""Two Ray nodes with model folders of their own, on this machine: minutes, so not in CI."""

import json
import os
import shutil

import pytest
from fleet_setup import has_ray, make_base, picture
from live_server import free_port
from picture_prompts import text_to_picture
from ray_nodes import HEAD, JOIN, cluster_environment, end, ray_node, wait_for_port
from test_fleet_on_ray import UpFleet

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="Ray Serve is not installed (requirements-fleet.txt), or this is not Linux"),
    pytest.mark.skipif(not os.environ.get("KEEPWARM_FLEET"), reason="takes minutes and two gigabytes; KEEPWARM_FLEET=1 runs it"),
    pytest.mark.timeout(1800),
    pytest.mark.slow,
]


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A head and a second node, each with ``same.safetensors`` of other contents and a model that the other lacks; gives the address."""
    bases = [make_base(tmp_path / name) for name in ("first", "second")]
    for base, own, other in ((bases[0], "m0", "m1"), (bases[1], "m1", "m0")):
        checkpoints = base / "models" / "checkpoints"
        shutil.copy(checkpoints / f"{own}.safetensors", checkpoints / "same.safetensors")
        (checkpoints / f"{other}.safetensors").unlink()
    port = free_port()
    for name, value in cluster_environment(tmp_path, tmp_path.parent.parent / "r").items():
        monkeypatch.setenv(name, value)
    address = f"127.0.0.1:{port}"
    started = []
    try:
        started.append(ray_node(HEAD, f"--port={port}", "--include-dashboard=false", "--num-cpus=1", base=bases[0]))
        wait_for_port(port)
        started.append(ray_node(JOIN, address, base=bases[1]))
        yield address
    finally:
        for process in reversed(started):
            end(process)


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
