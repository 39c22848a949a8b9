"""What a worker finds out about its surroundings: whether the server starts, what it keeps warm, what lies on the volume."""

import os
import subprocess
import sys

import pytest
from scripted_server import ScriptedServer

from serverless.model_caching import ModelCaching, configure_model_caching
from serverless.network_volume import diagnosis
from serverless.server_api import ServerApi
from serverless.server_availability import Availability, is_alive

CACHES = {
    "models": {"enabled": True, "stats": {"cap_bytes": 2_000_000_000, "kept": 3}, "entries": [{"held": True}, {"held": False}]},
    "results": {"mode": "classic", "providers": [{"name": "redis://results"}]},
    "preload": {"state": "ready", "models": 2, "entries": []},
}


async def waited(pid_file, retries=0):
    async with ServerApi("http://127.0.0.1:9") as api:
        return await Availability(0.001, retries, str(pid_file)).wait(api)


async def test_waiting_ends_as_soon_as_the_server_answers():
    async with ScriptedServer() as server, ServerApi(f"http://{server.host}") as api:
        assert await Availability(0.001, 1).wait(api)


async def test_waiting_ends_after_the_given_number_of_tries(tmp_path):
    assert not await waited(tmp_path / "none", retries=3)


async def test_waiting_ends_when_the_servers_process_has(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "pid").write_text(str(process.pid))
    assert not await waited(tmp_path / "pid")


async def test_waiting_goes_on_while_the_servers_process_lives(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    (tmp_path / "pid").write_text(str(process.pid))
    availability = Availability(0.001, 0, str(tmp_path / "pid"))
    assert availability._goes_on(10_000)
    process.kill()
    process.wait()
    assert not availability._goes_on(1)


def test_an_ended_process_that_was_not_reaped_does_not_count_as_alive():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid) and is_alive(os.getpid())
    process.wait()


def test_what_a_server_keeps_warm_is_logged():
    caching = ModelCaching.from_caches(CACHES)
    assert (caching.keeps_models, caching.cap_bytes, caching.held, caching.providers) == (True, 2_000_000_000, 1, ("redis://results",))
    text = "\n".join(caching.lines())
    assert (
        "up to 2.00 GB of RAM; 3 kept now, 1 held" in text and "state ready, models 2" in text and "shared through redis://results" in text
    )


@pytest.mark.parametrize(
    "caches, part",
    [
        ({"models": {"enabled": False, "stats": None}}, "OFF"),
        ({"models": {"error": "broken"}}, "OFF"),
        ({"results": {"mode": "none"}}, "--cache-none makes every job compute everything"),
        ({}, "preload: none"),
    ],
)
def test_possible_improvements_are_logged(caches, part):
    assert part in "\n".join(ModelCaching.from_caches(caches).lines())


async def test_a_server_without_the_route_is_accepted(caplog):
    caplog.set_level("INFO")
    async with ScriptedServer() as server, ServerApi(f"http://{server.host}") as api:
        assert await configure_model_caching(api) == ModelCaching()
    assert "model caching: unknown" in caplog.text


def test_a_volume_without_models_is_diagnosed(tmp_path):
    assert "attach a volume" in next(diagnosis(tmp_path / "none"))
    (tmp_path / "Models").mkdir()
    assert list(diagnosis(tmp_path)) == [
        f"network volume: {tmp_path / 'models'} is not there, so no model is found; {tmp_path} holds Models"
    ]
    folder = tmp_path / "models" / "checkpoints" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(b"x" * 1_500_000)
    (folder / "notes.txt").write_text("x")
    lines = list(diagnosis(tmp_path))
    assert "network volume:   checkpoints: 1 models (deep/a.safetensors (1.5 MB)), 1 other files" in lines
    assert "network volume:   vae: not there" in lines
