"""No job is lost: sockets that break, servers that die."""

import concurrent.futures
import random
import threading
import time

import pytest
from cutting_proxy import CuttingProxy
from live_server import LiveServer, free_port
from model_workflows import node


def drawing():
    return {
        "7": node("EmptyImage", width=16, height=12, batch_size=1, color=random.randrange(2**24)),
        "8": node("SaveImage", images=["7", 0], filename_prefix="picture"),
    }


def sleeping(seconds):
    return {"7": node("TestSleep", seconds=seconds, salt=random.random()), "8": node("SaveImage", images=["7", 0], filename_prefix="late")}


SLEEPER = """
import time
import comfy.model_management
import comfy.utils
import torch


class TestSleep:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 1.0, "max": 600.0}), "salt": ("FLOAT", {"default": 0.0})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "sleep"
    CATEGORY = "tests"

    def sleep(self, seconds, salt):
        ends_s = time.monotonic() + seconds
        bar = comfy.utils.ProgressBar(10)
        while time.monotonic() < ends_s:
            bar.update_absolute(3)
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        return (torch.zeros(1, 8, 8, 3),)


NODE_CLASS_MAPPINGS = {"TestSleep": TestSleep}
"""


@pytest.fixture
def start_sleeper(tmp_path, monkeypatch):
    """Starts a server with a node that takes its time, every time at the same port."""
    base, port, started = tmp_path / "server", free_port(), []
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "sleeper.py").write_text(SLEEPER, encoding="utf-8")
    monkeypatch.setattr("live_server.free_port", lambda: port)

    def start():
        started.append(LiveServer(base))
        return started[-1]

    yield start
    for live in started:
        live.stop()


def in_background(function, **more):
    """Call it on a thread: ``result()`` waits for what it returns."""
    future = concurrent.futures.Future()

    def call():
        try:
            future.set_result(function(**more))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def until_running(server):
    """The prompt that runs, once one does."""
    while not (running := server.get("/queue")["queue_running"]):
        time.sleep(0.01)
    return running[0][1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'"type":"executing","data":{"node":null', id="end"),
        pytest.param(b'"type":"execution_success"', id="success", marks=pytest.mark.slow),
    ],
)
def test_a_job_ends_although_its_socket_is_cut_just_before_the_end(server, start_worker, text):
    proxy = CuttingProxy(server.port)
    try:
        worker = start_worker(f"127.0.0.1:{proxy.port}")
        worker.output(workflow=drawing())
        proxy.cut_before(text)
        began_s = time.monotonic()
        assert worker.output(workflow=drawing())["images"]
        assert proxy.was_cut.is_set() and time.monotonic() - began_s < 5
        assert worker.output(workflow=drawing())["images"]
    finally:
        proxy.close()


def test_a_server_killed_in_the_middle_of_a_job(start_sleeper, start_worker):
    server = start_sleeper()
    worker = start_worker(f"127.0.0.1:{server.port}", {"COMFY_API_AVAILABLE_MAX_RETRIES": "600"})
    waiting = in_background(worker.error, workflow=sleeping(300))
    until_running(server)
    server.process.kill()
    server.process.wait()
    assert "the ComfyUI server died while the prompt ran" in waiting.result(60)
    again = in_background(worker.output, workflow=sleeping(0))
    start_sleeper()
    assert again.result(100)["images"]
