"""``python -m fleet up`` as people use it: two servers on Ray Serve behind a gateway, killed and ended."""

import contextlib
import ipaddress
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import psutil
import pytest
from fleet_setup import FLAGS, has_ray, make_base, picture
from live_server import ROOT, free_port
from waiting_node import waiting

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="Ray Serve is not installed (requirements-fleet.txt), or this is not Linux"),
    pytest.mark.timeout(600),
]
START_LIMIT_S = 400.0


class FleetClient:
    """A client of the gateway at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, path: str, document: dict | None = None):
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def run(self, prompt: dict, timeout_s: float = 200.0) -> dict:
        """The history entry of *prompt*, once it has ended; tried again while no server is there."""
        prompt_id, end_s = str(uuid.uuid4()), time.monotonic() + timeout_s
        while True:
            try:
                self.request("/prompt", {"prompt": prompt, "prompt_id": prompt_id, "client_id": "test"})
                break
            except urllib.error.HTTPError as error:
                assert error.code == 503 and time.monotonic() < end_s, error.read()
                time.sleep(0.5)
        while time.monotonic() < end_s:
            entry = self.request(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            time.sleep(0.1)
        raise AssertionError(f"no end of {prompt_id} within {timeout_s} s")


class UpFleet(FleetClient):
    """A fleet in processes of its own."""

    def __init__(self, folder: pathlib.Path, servers: int, *flags: str, own: tuple[str, ...] = ()) -> None:
        self.port, self.log_path = free_port(), folder / "up.log"
        super().__init__(f"http://127.0.0.1:{self.port}")
        command = [
            sys.executable,
            "-m",
            "fleet",
            "up",
            "--servers",
            str(servers),
            "--port",
            str(self.port),
            "--folder",
            str(folder / "fleet"),
            *own,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--", *FLAGS, *flags], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_up(self) -> None:
        end_s = time.monotonic() + START_LIMIT_S
        while "The page of the whole fleet" not in self.log():
            assert self.process.poll() is None and time.monotonic() < end_s, self.log()
            time.sleep(0.2)

    def tree(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def servers(self) -> list[psutil.Process]:
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                if str(ROOT / "main.py") in process.cmdline():
                    found.append(process)
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(90)
            self.process.kill()
            self.process.wait()


@pytest.fixture
def fleet(tmp_path):
    made = UpFleet(tmp_path, 2, "--base-directory", str(make_base(tmp_path / "base")), "--ram-model-cache-mb", "60")
    yield made
    made.end()


def gone(processes: list[psutil.Process], timeout_s: float) -> list[str]:
    """Those of *processes* that still live after *timeout_s*."""
    _, alive = psutil.wait_procs(processes, timeout_s)
    return [" ".join(process.cmdline()) for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_a_fleet_from_its_start_to_kill_minus_nine(fleet):
    fleet.wait_until_up()
    assert "server 1 of 2" in fleet.log() and "server 2 of 2" in fleet.log() and fleet.url in fleet.log()
    models_are_read_once(fleet)
    a_refusal_says_why(fleet)
    everything_listens_on_loopback_with_a_token_and_reports_nothing(fleet)
    a_killed_server_comes_back(fleet)
    processes = fleet.tree()
    assert len(processes) > 5
    os.kill(fleet.process.pid, signal.SIGKILL)
    fleet.process.wait()
    assert gone(processes, 120) == [], "Ray's own agents look for their parent now and then"


def models_are_read_once(fleet):
    read = []
    for seed in range(6):
        entry = fleet.run(picture(seed % 2, seed))
        assert entry["status"]["status_str"] == "success", entry["status"]
        read.append(any(receipt["tier"] == "disk" for receipt in entry.get("models") or ()))
    assert read == [True, True, False, False, False, False]


def a_refusal_says_why(fleet):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fleet.request("/prompt", {"prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}})
    assert refused.value.code == 400 and "NoSuchNode" in refused.value.read().decode()


def everything_listens_on_loopback_with_a_token_and_reports_nothing(fleet):
    names = set()
    for process in [psutil.Process(fleet.process.pid), *fleet.tree()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(connection.laddr.ip)
                    mapped = getattr(address, "ipv4_mapped", None)
                    assert (mapped or address).is_loopback, (process.name(), connection)
            names.add(process.name())
            if process.name() in ("raylet", "gcs_server"):
                environment = process.environ()
                assert environment["RAY_USAGE_STATS_ENABLED"] == "0" and environment["RAY_AUTH_MODE"] == "token"
    assert {"raylet", "gcs_server"} <= names


def a_killed_server_comes_back(fleet):
    before = {process.pid for process in fleet.servers()}
    assert len(before) == 2 and all(process.nice() == os.nice(0) for process in fleet.servers()), "Ray would make them wait for others"
    os.kill(min(before), signal.SIGKILL)
    for number in range(4):
        assert fleet.run(waiting(number, 0.05))["status"]["status_str"] == "success"
    end_s = time.monotonic() + 60
    while len(fleet.servers()) < 2 and time.monotonic() < end_s:
        time.sleep(0.1)
    assert len({process.pid for process in fleet.servers()} & before) == 1
