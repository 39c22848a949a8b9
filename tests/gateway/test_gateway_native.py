"""ComfyUI's own API over two servers: a native client finds one server."""

import io
import json
import random
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest
from live_server import Client
from model_workflows import STARTERS, node, workflow
from PIL import Image


def drawing(color=None, **more):
    color = random.randrange(2**24) if color is None else color
    return {
        "1": node("EmptyImage", width=16, height=12, batch_size=1, color=color, **more),
        "2": node("SaveImage", images=["1", 0], filename_prefix="drawn"),
    }


def slow(seconds_per_step=0.05, steps=400):
    """A prompt that runs for long, in steps between which it can be stopped."""
    prompt = workflow(STARTERS[0], random.randrange(2**32))
    (sampler,) = (one for one in prompt.values() if one["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = steps
    return prompt


def upload(server, name, content, **fields):
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(server.url + "/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def picture(color):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), color).save(file, "PNG")
    return file.getvalue()


def test_a_prompt_runs_and_its_messages_history_and_picture_are_those_of_one_server(gateway):
    run = gateway.run(drawing())
    kinds = [message["type"] for message in run.messages]
    assert kinds[-1] == "executing" and kinds[-2] == "status" and "executed" in kinds
    assert run.executed == ["1", "2"] and run.history["status"]["status_str"] == "success"
    (shown,) = run.of_type("executed")
    assert shown["output"] == run.history["outputs"]["2"]
    with Image.open(io.BytesIO(run.file_bytes())) as image:
        assert image.size == (16, 12)
    job = gateway.get(f"/api/jobs/{run.prompt_id}")
    assert job["status"] == "completed" and job["preview_output"]["subfolder"] == run.files[0]["subfolder"]


def test_equal_names_of_different_servers_are_different_pictures(gateway, two_servers):
    colors = {}
    for server, color in zip(two_servers, (0xFF0000, 0x00FF00), strict=True):
        assert (
            server.post("/prompt", {"prompt": {**drawing(color), "2": node("SaveImage", images=["1", 0], filename_prefix="same")}})[0]
            == 200
        )
        colors[server] = color
    for server in two_servers:
        for _ in range(200):
            if len(list((server.base / "output").glob("same_*"))):
                break
            time.sleep(0.05)
    seen = set()
    for index in (1, 2):
        query = urllib.parse.urlencode({"filename": "same_00001_.png", "subfolder": f"@s{index}", "type": "output"})
        with Image.open(io.BytesIO(gateway.get_bytes("/view?" + query))) as image:
            seen.add(image.convert("RGB").getpixel((0, 0)))
    assert seen == {(255, 0, 0), (0, 255, 0)}
    with pytest.raises(urllib.error.HTTPError) as refused:
        gateway.get_bytes("/view?filename=same_00001_.png&type=output")
    assert refused.value.code == 409


def test_a_model_that_one_server_has_is_offered_and_used(gateway):
    names = gateway.get("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert set(STARTERS) <= set(names) and set(STARTERS) <= set(gateway.get("/models/checkpoints"))
    made = [gateway.run(workflow(name, 1), timeout_s=120) for name in STARTERS]
    assert [run.history["status"]["status_str"] for run in made] == ["success", "success"]
    assert [run.files[0]["subfolder"] for run in made] == ["@s1", "@s2"]


def test_previews_reach_the_client_in_the_form_that_it_can_read(gateway):
    for announced in (True, False):
        client = Client(gateway)
        if announced:
            client.socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        status, answer = gateway.post("/prompt", {"prompt": slow(steps=3), "client_id": client.client_id})
        assert status == 200, answer
        frames = []
        for message in client.messages():
            if isinstance(message, bytes):
                frames.append(message)
            elif message["type"] == "executing" and message["data"]["node"] is None:
                break
        assert {struct.unpack(">I", frame[:4])[0] for frame in frames} == {4 if announced else 1}
        client.close()


def test_refusals_are_those_of_a_server(gateway, two_servers):
    wrong = {"1": node("SaveImage", filename_prefix="x")}
    assert gateway.post("/prompt", {"prompt": wrong}) == two_servers[0].post("/prompt", {"prompt": wrong})
    for body in ({}, {"prompt": 1}, {"prompt": {}}, {"prompt": drawing(), "prompt_id": "x"}, {"prompt": drawing(), "number": "x"}, []):
        assert gateway.post("/prompt", body) == two_servers[0].post("/prompt", body), body


def test_the_same_id_twice_is_one_job(gateway):
    prompt_id = str(uuid.uuid4())
    body = {"prompt": slow(), "prompt_id": prompt_id}
    assert gateway.post("/prompt", body)[0] == 200
    status, answer = gateway.post("/prompt", body)
    assert status == 409 and answer["error"]["type"] == "duplicate_prompt_id"
    assert gateway.post(f"/api/jobs/{prompt_id}/cancel", {}) == (200, {"cancelled": True})


@pytest.mark.parametrize("way", ["jobs", "interrupt"])
def test_a_running_prompt_is_stopped_and_says_so(gateway, way):
    client = Client(gateway)
    status, answer = gateway.post("/prompt", {"prompt": slow(), "client_id": client.client_id})
    assert status == 200, answer
    seen = []
    for message in client.messages():
        if isinstance(message, bytes):
            continue
        seen.append(message["type"])
        if message["type"] == "progress" and "asked" not in seen:
            seen.append("asked")
            if way == "jobs":
                assert gateway.post("/api/jobs/cancel", {"job_ids": [answer["prompt_id"]]}) == (200, {"cancelled": True})
            else:
                assert gateway.post("/interrupt", {"prompt_id": answer["prompt_id"]})[0] == 200
        if message["type"] == "executing" and message["data"]["node"] is None:
            break
    assert "execution_interrupted" in seen
    assert gateway.get(f"/api/jobs/{answer['prompt_id']}")["status"] == "cancelled"
    client.close()


def test_a_waiting_prompt_is_withdrawn(gateway):
    ids = [str(uuid.uuid4()) for _ in range(4)]
    for prompt_id in ids:
        assert gateway.post("/prompt", {"prompt": slow(), "prompt_id": prompt_id})[0] == 200
    queue = gateway.get("/queue")
    waiting = [row[1] for row in queue["queue_pending"] if row[1] in ids]
    assert waiting and gateway.get("/prompt")["exec_info"]["queue_remaining"] == 4
    assert gateway.post("/queue", {"delete": waiting})[0] == 200
    assert not [row for row in gateway.get("/queue")["queue_pending"] if row[1] in ids]
    for prompt_id in ids:
        gateway.post(f"/api/jobs/{prompt_id}/cancel", {})
    for _ in range(200):
        if gateway.get("/prompt")["exec_info"]["queue_remaining"] == 0:
            break
        time.sleep(0.05)
    assert gateway.get("/prompt")["exec_info"]["queue_remaining"] == 0


def test_an_upload_reaches_the_server_that_needs_it(gateway, two_servers):
    stored = upload(gateway, "mine.png", picture((10, 20, 30)), subfolder="deep/er")
    assert stored == {"name": "mine.png", "subfolder": "deep/er", "type": "input"}
    assert not [server for server in two_servers if (server.base / "input" / "deep").exists()]
    prompt = {
        "1": node("LoadImage", image="deep/er/mine.png"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="turned"),
    }
    run = gateway.run(prompt)
    with Image.open(io.BytesIO(run.file_bytes())) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (245, 235, 225)
    shown = gateway.get_bytes("/view?filename=mine.png&subfolder=deep%2Fer&type=input")
    assert shown == picture((10, 20, 30))
    # The same name with another content.
    upload(gateway, "mine.png", picture((0, 0, 0)), subfolder="deep/er", overwrite="true")
    with Image.open(io.BytesIO(gateway.run(prompt).file_bytes())) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert "deep/er/mine.png" in gateway.get("/object_info/LoadImage")["LoadImage"]["input"]["required"]["image"][0]


def test_a_result_of_one_server_is_an_input_of_another(gateway):
    (made,) = gateway.run(workflow(STARTERS[1], 5), timeout_s=120).files
    assert made["subfolder"] == "@s2"
    prompt = workflow(STARTERS[0], 6)
    prompt["p"] = node("LoadImage", image=f"{made['subfolder']}/{made['filename']} [output]")
    prompt["q"] = node("SaveImage", images=["p", 0], filename_prefix="again")
    run = gateway.run(prompt, timeout_s=120)
    assert {file["subfolder"] for file in run.files} == {"@s1"}


def test_settings_and_workflows_are_kept_by_the_gateway(gateway):
    assert gateway.post("/settings", {"Comfy.Here": 1})[0] == 200
    assert gateway.get("/api/settings/Comfy.Here") == 1
    status, name = gateway.post("/userdata/workflows%2Fa.json", {"nodes": []})
    assert (status, name) == (200, "workflows/a.json")
    assert gateway.get("/userdata?dir=workflows") == ["a.json"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/prompt", {"Origin": "http://evil.example"}, 403),
        ("/prompt", {"Host": "evil.example"}, 403),
        ("/prompt", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("/view?filename=../../x.png", {}, 400),
        ("/view?filename=x.png&subfolder=..%2F..", {}, 403),
        ("/view?filename=x.png&subfolder=%40s1%2F..%2F..", {}, 403),
        ("/view?filename=x.png&subfolder=%40nobody", {}, 404),
        ("/view?filename=..%2Fx&subfolder=%40s1", {}, 400),
        ("/fleet/inputs/00/input/..%2F..%2Fetc%2Fpasswd", {}, 404),
        ("/fleet/inputs/00/output/x.png", {}, 404),
        ("/userdata/..%2F..%2Fx", {}, 403),
        ("/nothing/here", {}, 404),
    ],
)
def test_who_is_refused(gateway, path, headers, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(gateway.url + path, headers=headers), timeout=10)
    assert refused.value.code == status
