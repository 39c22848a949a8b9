"""The client against the worker's own HTTP service."""

import asyncio
import io
import json
import threading

import pytest
from aiohttp import web
from scripted_server import PICTURE, ScriptedServer
from workflow_shapes import text_to_image

from serverless.client_endpoints import RunPodEndpoint, SendError, endpoint_for
from serverless.http_service import HttpService
from serverless.send_request import ProgressBar, RunRow, main, table
from serverless.settings import WorkerSettings
from serverless.worker import Worker


@pytest.fixture
def service():
    """(url, server) of a service on a thread of its own."""
    ready, ended, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    found = {}

    async def serve():
        async with ScriptedServer() as server:
            runner = web.AppRunner(HttpService(Worker(WorkerSettings(host=server.host))).make_app())
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found.update(url=f"http://127.0.0.1:{runner.addresses[0][1]}", server=server)
            ready.set()
            await ended.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield found["url"], found["server"]
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)
    loop.close()


@pytest.fixture
def workflow_file(tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(text_to_image()), encoding="utf-8")
    return path


def send(*arguments):
    out = io.StringIO()
    return main([str(argument) for argument in arguments], out), out.getvalue()


def test_a_workflow_goes_out_and_its_files_are_saved(service, workflow_file, tmp_path):
    url, server = service
    picture = tmp_path / "input.png"
    picture.write_bytes(b"bytes")
    status, text = send(workflow_file, "--url", url, "--output", tmp_path / "out", "--image", f"in.png={picture}", "--set", "3.steps=5")
    assert status == 0 and text == f"{tmp_path / 'out' / 'x.png'}\n"
    assert (tmp_path / "out" / "x.png").read_bytes() == PICTURE and server.uploads == {"in.png": b"bytes"}
    sampler = next(node for node in server.bodies[0]["prompt"].values() if node["class_type"] == "KSampler")
    assert sampler["inputs"]["steps"] == 5 and sampler["inputs"]["seed"] == 7


def test_repeating_sends_new_seeds_keeps_earlier_files_and_prints_a_table(service, workflow_file, tmp_path):
    url, server = service
    status, text = send(workflow_file, "--url", url, "--output", tmp_path, "--repeat", 3)
    seeds = [node["inputs"]["seed"] for body in server.bodies for node in body["prompt"].values() if node["class_type"] == "KSampler"]
    assert status == 0 and len(set(seeds)) == 3 and seeds[0] == 7
    assert len({tuple(body["prompt"]) for body in server.bodies}) == 1, "the ids stay"
    assert [(tmp_path / name).is_file() for name in ("x.png", "x-2.png", "x-3.png")] == [True] * 3
    assert "MB from disk" in text and text.count("unknown") == 3


def test_errors_are_reported_with_the_ids_of_the_file(service, workflow_file, capsys):
    url, server = service
    names = {}
    send(workflow_file, "--url", url, "--output", workflow_file.parent / "o")
    names.update(server.bodies[0]["prompt"])
    sampler = next(node_id for node_id, node in names.items() if node["class_type"] == "KSampler")
    server.refusal = (400, {"error": {"type": "x", "message": "no"}, "node_errors": {sampler: {"errors": [{"message": "bad"}]}}})
    assert send(workflow_file, "--url", url, "--set", "3.steps=8")[0] == 1
    assert "• Node 3 (errors): bad" in capsys.readouterr().err


def test_values_that_cannot_be_sent_are_logged(tmp_path, workflow_file, capsys):
    assert send(tmp_path / "none.json")[0] == 1 and "none.json" in capsys.readouterr().err
    assert send(workflow_file, "--url", "http://127.0.0.1:9", "--kind", "runpod")[0] == 1
    assert "POST http://127.0.0.1:9/run: " in capsys.readouterr().err
    assert send(workflow_file, "--image", tmp_path / "none.png")[0] == 1


def test_the_kind_of_endpoint_is_found_out(service):
    url, _ = service
    assert isinstance(endpoint_for(url, None), RunPodEndpoint)
    assert isinstance(endpoint_for("https://api.runpod.ai/v2/abc", "key"), RunPodEndpoint)
    assert type(endpoint_for("http://127.0.0.1:9/api/v2", None)).__name__ == "ComfyV2Endpoint"
    assert type(endpoint_for("http://127.0.0.1:9", None)).__name__ == "LocalEndpoint"


def test_a_job_that_takes_too_long_is_cancelled(service, workflow_file):
    url, server = service
    release = threading.Event()

    async def hang(server, prompt_id):
        release.set()

    server.script = hang
    with pytest.raises(SendError, match="took longer than 0 s and was cancelled"):
        from serverless.client_endpoints import Request

        endpoint = RunPodEndpoint(url, sleep=lambda pause_s: release.wait(pause_s))
        endpoint.run(Request(text_to_image()), 0, lambda progress: None)


def test_the_table_compares_cold_and_warm():
    def row(seconds, temperature, read):
        return RunRow(
            seconds,
            {
                "temperature": temperature,
                "models": {"read_bytes": read, "hits": 3, "saved_s": 1.5},
                "nodes": 7,
                "cached": 3,
                "seconds": {"worker_s": 0.012},
            },
        )

    text = table([row(9.0, "cold", 2_000_000), row(1.0, "warm", 0), RunRow(2.0, None)])
    assert text.splitlines()[1].split() == ["1", "9.00", "cold", "2.0", "3", "1.50", "4", "of", "7", "12"]
    assert text.splitlines()[3].split() == ["3", "2.00", "unknown", "-", "-", "-", "-", "-"]
    assert text.endswith("cold 9.00 s, warm 1.00 s (medians of 1 and 1)")


def test_the_bar_is_drawn_on_terminals_only():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        ProgressBar(stream).show({"percent": 50.0, "node": "3"})
    assert "[###############...............]  50.0 %  node 3" in terminal.getvalue() and not pipe.getvalue()
