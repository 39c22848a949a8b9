"""Comfy API v2 over one server of ours, through the official proxy: the official SDK and our client."""

import json
import random
import subprocess
import sys
import time
import urllib.request

import pytest
from live_server import free_port
from model_workflows import node

from serverless.client_endpoints import ComfyV2Endpoint, Request, SendError


@pytest.fixture(scope="module")
def v2(server, tmp_path_factory):
    """The address of a proxy before the shared server."""
    pytest.importorskip("comfy_api_proxy", reason="needs the package comfy-api-proxy")
    port = free_port()
    log = tmp_path_factory.mktemp("proxy") / "proxy.log"
    with log.open("wb") as stream:
        code = "import sys; from comfy_api_proxy.cli import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run", "--comfyui", server.url, "--port", str(port)], stdout=stream, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}/api/v2"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/jobs", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(20)


def drawing():
    return {
        "7": node("EmptyImage", width=16, height=12, batch_size=1, color=random.randrange(2**24)),
        "8": node("SaveImage", images=["7", 0], filename_prefix="v2"),
    }


def test_our_client_gets_the_pictures(v2):
    answer = ComfyV2Endpoint(v2).run(Request(drawing()), 60, lambda progress: None)
    (file,) = answer.files
    assert file.name.endswith(".png") and file.read().startswith(b"\x89PNG") and answer.report is None


def test_our_client_sends_an_input_file(v2):
    picture = ComfyV2Endpoint(v2).run(Request(drawing()), 60, lambda progress: None).files[0].read()
    workflow = {
        "1": node("LoadImage", image="mine.png"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="v2"),
    }
    assert ComfyV2Endpoint(v2).run(Request(workflow, {"mine.png": picture}), 60, lambda progress: None).files[0].read()[:4] == b"\x89PNG"


def test_an_invalid_workflow_is_refused_with_422(v2):
    with pytest.raises(SendError, match="status 422"):
        ComfyV2Endpoint(v2).run(Request({"1": node("SaveImage", filename_prefix="x")}), 60, lambda progress: None)


def test_the_official_sdk(v2, monkeypatch):
    comfy_sdk = pytest.importorskip("comfy_sdk", reason="needs the package comfy-sdk")
    monkeypatch.setenv(comfy_sdk.BASE_URL_ENV_VAR, v2.removesuffix("/api/v2"))
    client = comfy_sdk.Comfy(api_key="any")
    job = None
    for _ in range(6):
        try:
            job = client.run(comfy_sdk.Workflow(drawing()), timeout=60)
            break
        except comfy_sdk.JobFailed as error:
            # The proxy (0.1.6) asks the history, then the queue, and calls a job that ends in between expired: short jobs often do.
            assert "expired" in str(error)
    assert job is not None, "each of six jobs ended between the proxy's two questions"
    assert job.status == "succeeded" and json.dumps([output.name for output in job.outputs]).count(".png") == 1
