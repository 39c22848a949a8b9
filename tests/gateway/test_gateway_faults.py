"""Servers that die, clients that come back, and a fleet that is full: every job ends once, or fails with a reason."""

import json
import random
import shutil
import time
import urllib.error
import urllib.request
import uuid

import pytest
from gateway_process import LiveGateway
from live_server import ROOT, Client, LiveServer
from model_workflows import STARTERS, checkpoints, node, workflow

RECOVERY_S = 5.0


def drawing():
    return {
        "1": node("EmptyImage", width=16, height=12, batch_size=1, color=random.randrange(2**24)),
        "2": node("SaveImage", images=["1", 0], filename_prefix="drawn"),
    }


def slow():
    prompt = workflow(STARTERS[0], random.randrange(2**32))
    (sampler,) = (one for one in prompt.values() if one["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = 10_000
    return prompt


def until(what, timeout_s=60):
    deadline_s = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert what()


@pytest.fixture
def small_fleet(tmp_path):
    """Two servers with the same model, of which each takes two jobs, and their gateway."""
    servers = []
    for name in ("one", "two"):
        server = LiveServer(tmp_path / name)
        shutil.copy(ROOT / "models" / "checkpoints" / STARTERS[0], checkpoints(server) / STARTERS[0])
        servers.append(server)
    gateway = LiveGateway(tmp_path / "gateway", servers, "--max-waiting", "2")
    yield gateway, servers
    for one in (gateway, *servers):
        one.stop()


def test_a_full_fleet_a_killed_server_and_a_client_that_comes_back(small_fleet):
    gateway, servers = small_fleet
    client = Client(gateway)
    sent = [gateway.post("/prompt", {"prompt": slow(), "client_id": client.client_id}) for _ in range(4)]
    assert [status for status, _ in sent] == [200] * 4
    ids = [answer["prompt_id"] for _, answer in sent]
    request = urllib.request.Request(gateway.url + "/prompt", json.dumps({"prompt": drawing()}).encode())
    with pytest.raises(urllib.error.HTTPError) as full:
        urllib.request.urlopen(request, timeout=30)
    assert full.value.code == 429 and int(full.value.headers["Retry-After"]) >= 1
    assert json.load(full.value)["error"]["type"] == "queue_full"

    # A client that reconnects under its id hears of what runs.
    until(lambda: len(gateway.get("/queue")["queue_running"]) == 2)
    client.close()
    client = Client(gateway, client.client_id)
    for message in client.messages():
        if not isinstance(message, bytes) and message["type"] == "progress":
            break

    # The server of the first job dies: that job is lost and says why, the one behind it runs on the other server or is lost too.
    running = {row[1] for row in servers[0].get("/queue")["queue_running"]}
    (lost,) = running & set(ids)
    waiting = [row[1] for row in servers[0].get("/queue")["queue_pending"]]
    servers[0].process.kill()
    killed_s = time.monotonic()
    for message in client.messages():
        if not isinstance(message, bytes) and message["type"] == "execution_error":
            break
    assert time.monotonic() - killed_s < RECOVERY_S
    assert message["data"]["prompt_id"] == lost and "died while it ran it" in message["data"]["exception_message"]
    for message in client.messages():
        if not isinstance(message, bytes) and message["type"] == "executing" and message["data"]["node"] is None:
            break
    assert message["data"]["prompt_id"] == lost
    entry = gateway.get(f"/history/{lost}")[lost]
    assert entry["status"]["status_str"] == "error" and gateway.get(f"/api/jobs/{lost}")["status"] == "failed"
    assert len(waiting) == 1
    until(lambda: waiting[0] in {row[1] for rows in servers[1].get("/queue").values() for row in rows})

    # The rest is stopped, and the fleet goes on with the server that is left.
    for prompt_id in set(ids) - {lost}:
        gateway.post(f"/api/jobs/{prompt_id}/cancel", {})
    until(lambda: gateway.get("/prompt")["exec_info"]["queue_remaining"] == 0)
    run = gateway.run(drawing())
    assert run.files[0]["subfolder"] == "@s2" and gateway.get_bytes("/fleet")
    assert [one["state"] for one in gateway.get("/fleet/state")["servers"]] == ["gone", "ready"]

    # With none left it is said, and what ended stays known, once the fleet has noted the end.
    until(lambda: run.prompt_id not in {job["prompt_id"] for job in gateway.get("/fleet/state")["jobs"]})
    servers[1].process.kill()
    until(lambda: gateway.post("/prompt", {"prompt": drawing()})[0] == 503)
    assert gateway.get(f"/history/{run.prompt_id}")[run.prompt_id]["status"]["status_str"] == "success"


def test_a_gateway_that_is_started_anew_finds_what_servers_know(two_servers, tmp_path):
    first = LiveGateway(tmp_path / "gateway", two_servers)
    prompt_id = str(uuid.uuid4())
    run = first.run(drawing(), prompt_id=prompt_id)
    first.process.kill()
    first.process.wait()
    second = LiveGateway(tmp_path / "gateway", two_servers)
    try:
        entry = second.get(f"/history/{prompt_id}")[prompt_id]
        assert entry["outputs"] == run.history["outputs"] and entry["status"]["status_str"] == "success"
    finally:
        second.stop()
