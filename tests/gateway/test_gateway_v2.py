"""Comfy API v2 over two servers: the official SDK, unmodified, and what the API says of errors."""

import io
import json
import random
import time
import urllib.error
import urllib.request

import pytest
from model_workflows import STARTERS, node, workflow
from PIL import Image

from fleet.gateway.v2.outputs import OutputFile
from serverless.client_endpoints import ComfyV2Endpoint, Request

comfy_sdk = pytest.importorskip("comfy_sdk", reason="needs the package comfy-sdk")


@pytest.fixture
def client(gateway, monkeypatch):
    monkeypatch.setenv(comfy_sdk.BASE_URL_ENV_VAR, gateway.url)
    return comfy_sdk.Comfy(api_key="any")


def drawing():
    return {
        "7": node("EmptyImage", width=16, height=12, batch_size=1, color=random.randrange(2**24)),
        "8": node("SaveImage", images=["7", 0], filename_prefix="v2"),
    }


def slow(steps=400):
    prompt = workflow(STARTERS[0], random.randrange(2**32))
    (sampler,) = (one for one in prompt.values() if one["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = steps
    return prompt


def call(gateway, method, path, body=None, **headers):
    request = urllib.request.Request(gateway.url + path, None if body is None else json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def test_the_sdk_runs_a_workflow_and_gets_its_bytes(client):
    job = client.run(comfy_sdk.Workflow(drawing()), timeout=60)
    assert job.status == "succeeded"
    (output,) = job.outputs
    with Image.open(io.BytesIO(output.to_bytes())) as image:
        assert image.size == (16, 12)
    assert output.size_bytes == len(output.to_bytes()) and output.to_bytes(range=(0, 3)) == b"\x89PNG" and output.job_id == job.id
    assert job.get_workflow().graph["8"]["class_type"] == "SaveImage"


def test_the_sdk_follows_progress_previews_and_outputs(client):
    job = client.submit(comfy_sdk.Workflow(slow(steps=40)), metadata={"who": "me"})
    kinds, values = [], []
    for event in job.events():
        kinds.append(type(event).__name__)
        if kinds[-1] == "Progress":
            values.append(event.value)
    assert {"StatusChange", "Progress", "Preview", "OutputReady"} <= set(kinds) and kinds[-1] == "StatusChange"
    assert values == sorted(values) and values[-1] == 1.0
    assert job.refresh().status == "succeeded" and job.metadata == {"who": "me"}
    assert [one.id for one in client.list_jobs(metadata={"who": "me"})] == [job.id]
    assert job.id in [one.id for one in client.list_jobs()]


def test_the_sdk_uploads_a_file_once_and_uses_it(client, gateway):
    content = io.BytesIO()
    Image.new("RGB", (16, 12), (1, 2, random.randrange(256))).save(content, "PNG")
    assets = [client.assets.from_bytes(content.getvalue(), filename="mine.png") for _ in range(2)]
    for asset in assets:
        prompt = {
            "1": node("LoadImage", image=asset),
            "2": node("ImageInvert", image=["1", 0]),
            "3": node("SaveImage", images=["2", 0], filename_prefix="v2"),
        }
        job = client.run(comfy_sdk.Workflow(prompt), timeout=60)
        with Image.open(io.BytesIO(job.outputs[0].to_bytes())) as image:
            assert image.convert("RGB").getpixel((0, 0))[:2] == (254, 253)
    assert [asset.created_new for asset in assets] == [True, False] and assets[0].id == assets[1].id
    # An output is an asset as well, on whichever server it is needed.
    again = {"1": node("LoadImage", image={"__type": "core/ASSET", "info": {"id": job.outputs[0].id}})}
    again["2"] = node("SaveImage", images=["1", 0], filename_prefix="v2")
    assert client.run(comfy_sdk.Workflow(again), timeout=60).status == "succeeded"
    client.assets.delete(assets[0].id)
    with pytest.raises(comfy_sdk.NotFound):
        client.assets.get(assets[0].id)


def test_the_sdk_cancels_what_runs_and_what_waits(client):
    jobs = [client.submit(comfy_sdk.Workflow(slow())) for _ in range(3)]
    deadline_s = time.monotonic() + 60
    while jobs[0].refresh().status != "running" and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for job in reversed(jobs):
        assert job.cancel().status in ("canceling", "canceled")
    assert [job.wait(timeout=60).status for job in jobs] == ["canceled"] * 3


def test_the_sdk_is_told_what_is_wrong(client):
    with pytest.raises(comfy_sdk.InvalidWorkflow) as wrong:
        client.submit(comfy_sdk.Workflow({"1": node("SaveImage", filename_prefix="x")}))
    assert wrong.value.details["node_errors"]["1"]["errors"][0]["type"] == "required_input_missing"
    with pytest.raises(comfy_sdk.MissingAsset):
        client.submit(comfy_sdk.Workflow({"1": node("LoadImage", image={"__type": "core/ASSET", "info": {"id": "nobody"}})}))
    failing = {"1": node("LoadImage", image="v2-broken.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with pytest.raises(comfy_sdk.InvalidWorkflow):
        client.submit(comfy_sdk.Workflow(failing))


def test_one_key_is_one_job(client):
    key = f"key-{random.random()}"
    with pytest.raises(comfy_sdk.InvalidWorkflow):
        client.submit(comfy_sdk.Workflow({"1": node("SaveImage", filename_prefix="x")}), idempotency_key=key)
    job = client.submit(comfy_sdk.Workflow(drawing()), idempotency_key=key)
    for _ in range(2):
        with pytest.raises(comfy_sdk.IdempotencyKeyReuse):
            client.submit(comfy_sdk.Workflow(drawing()), idempotency_key=key)
        job.wait(timeout=60)


def test_our_own_client(gateway):
    answer = ComfyV2Endpoint(gateway.url + "/api/v2").run(Request(drawing()), 60, lambda progress: None)
    assert answer.files[0].read().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/v2/jobs", [], 400, "invalid_request"),
        ("POST", "/api/v2/jobs", {}, 422, "invalid_workflow"),
        ("POST", "/api/v2/jobs", {"workflow": {"nodes": [], "links": []}}, 422, "workflow_format_ui"),
        ("POST", "/api/v2/jobs", {"workflow": {}, "webhook_url": "http://x"}, 422, "invalid_workflow"),
        ("POST", "/api/v2/jobs", {"workflow": {}, "extra_data": {"other": "x"}}, 400, "invalid_request"),
        ("POST", "/api/v2/jobs", {"workflow": {}, "metadata": {"x": 1}}, 422, "metadata_invalid"),
        ("GET", "/api/v2/jobs/nobody", None, 404, "not_found"),
        ("GET", "/api/v2/jobs/6a1c0d2e-2b3e-4f56-8a7b-1c2d3e4f5a6b", None, 404, "not_found"),
        ("GET", "/api/v2/jobs?limit=0", None, 400, "invalid_request"),
        ("GET", "/api/v2/jobs?cursor=x", None, 400, "invalid_cursor"),
        ("GET", "/api/v2/assets/..%2F..%2Fetc%2Fpasswd", None, 404, "not_found"),
        ("POST", "/api/v2/assets", {}, 400, "invalid_request"),
        ("POST", "/api/v2/assets/from-hash", {"hash": "blake3:00"}, 404, "blob_not_found"),
    ],
)
def test_errors_have_codes(gateway, method, path, body, status, code):
    assert (lambda answer: (answer[0], answer[1]["error"]["code"]))(call(gateway, method, path, body)) == (status, code)


def test_a_forged_id_of_an_output_reads_nothing_else(gateway):
    for name, subfolder in (("../../../etc/passwd", "@s1"), ("passwd", "@s1/../../.."), ("x", "@nobody")):
        forged = OutputFile("x", "1", name, subfolder, "output").asset_id
        with pytest.raises(urllib.error.HTTPError) as refused:
            gateway.get_bytes(f"/api/v2/assets/{forged}/content")
        assert refused.value.code in (400, 403, 404)
