"""A fleet from the how-to's config file that a command scales, and one whose size follows its jobs: minutes, so not in CI."""

import concurrent.futures
import os
import re
import subprocess
import sys
import time

import pytest
import yaml
from fleet_setup import FLAGS, has_ray, make_base
from live_server import ROOT, free_port
from ray_nodes import HEAD, cluster_environment, end, ray_node, wait_for_port
from test_fleet_on_ray import FleetClient, UpFleet
from waiting_node import waiting

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="Ray Serve is not installed (requirements-fleet.txt), or this is not Linux"),
    pytest.mark.skipif(not os.environ.get("KEEPWARM_FLEET"), reason="takes minutes and two gigabytes; KEEPWARM_FLEET=1 runs it"),
    pytest.mark.timeout(1800),
    pytest.mark.slow,
]
LIMIT_S = 300.0


def ready(fleet):
    """How many servers of *fleet* take jobs."""
    return sum(server["state"] == "ready" for server in fleet.request("/fleet/state")["servers"])


def until_ready(fleet, count):
    end_s = time.monotonic() + LIMIT_S
    while ready(fleet) != count:
        assert time.monotonic() < end_s, f"{ready(fleet)} servers, not {count}"
        time.sleep(0.3)


def run_many(fleet, numbers, seconds):
    """Run waiting prompts side by side; how each ended."""
    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
        entries = list(pool.map(lambda number: fleet.run(waiting(number, seconds)), numbers))
    return [entry["status"]["status_str"] for entry in entries]


@pytest.fixture
def head(tmp_path, monkeypatch):
    """A cluster with Ray's dashboard, which takes config files; gives its address and the dashboard's."""
    for name, value in cluster_environment(tmp_path, tmp_path.parent.parent / "r").items():
        monkeypatch.setenv(name, value)
    port, dashboard = free_port(), free_port()
    options = ["--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    node = ray_node(HEAD, *options, "--num-cpus=4")
    try:
        wait_for_port(dashboard)
        yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
    finally:
        end(node)


def test_a_fleet_from_the_config_file_of_the_how_to_is_scaled_by_a_command(head, tmp_path):
    address, dashboard = head
    text = (ROOT / "docs" / "howto" / "fleet.md").read_text(encoding="utf-8")
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    arguments = config["applications"][0]["args"]
    flags = [*FLAGS, "--base-directory", str(make_base(tmp_path / "base"))]
    arguments |= {"servers": 1, "gateways": 1, "gpus_per_server": 0, "port": free_port(), "folder": str(tmp_path / "fleet"), "flags": flags}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(config))
    serve = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()"]
    subprocess.run([*serve, "deploy", "-a", dashboard, str(tmp_path / "fleet.yaml")], check=True, timeout=LIMIT_S, cwd=tmp_path)
    wait_for_port(arguments["port"])
    fleet = FleetClient(f"http://127.0.0.1:{arguments['port']}")
    until_ready(fleet, 1)
    assert run_many(fleet, range(2), 0.1) == ["success"] * 2
    scale = [sys.executable, "-m", "fleet", "scale", "--address", address, "--folder", str(tmp_path / "fleet"), "--servers"]
    subprocess.run([*scale, "2"], check=True, timeout=LIMIT_S, cwd=ROOT)
    assert ready(fleet) == 2
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        jobs = pool.submit(run_many, fleet, range(10, 16), 1.0)
        time.sleep(0.5)
        done = subprocess.run([*scale, "1"], check=True, timeout=LIMIT_S, cwd=ROOT, capture_output=True, text=True)
        assert jobs.result() == ["success"] * 6 and "Taken away" in done.stdout
    assert ready(fleet) == 1


def test_the_number_of_servers_follows_the_jobs(tmp_path):
    own = ("--most-servers", "2", "--jobs-per-server", "2", "--shrink-after-s", "3")
    fleet = UpFleet(tmp_path, 1, "--base-directory", str(make_base(tmp_path / "base")), own=own)
    try:
        fleet.wait_until_up()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            jobs = pool.submit(run_many, fleet, range(12), 5.0)
            until_ready(fleet, 2)
            assert not jobs.done() and jobs.result() == ["success"] * 12
        until_ready(fleet, 1)
        scale = [sys.executable, "-m", "fleet", "scale", "--folder", str(tmp_path / "fleet"), "--servers", "2"]
        refused = subprocess.run(scale, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert refused.returncode == 1 and "follows its jobs" in refused.stdout, refused.stdout + refused.stderr
    finally:
        fleet.end()
