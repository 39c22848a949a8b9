"""The gateway's application before two scripted servers, all in this process."""

import asyncio
import contextlib
import json
import pathlib
import socket
import sys
import uuid

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from blake3 import blake3

import folder_paths

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "serverless_test"))
from scripted_server import PICTURE, ScriptedServer, hang, succeed  # noqa: E402

from fleet.gateway.app import Gateway  # noqa: E402
from fleet.gateway.held_ends import HeldEnds  # noqa: E402
from fleet.gateway.settings import GatewaySettings  # noqa: E402
from fleet.plain.static_fleet import StaticFleet  # noqa: E402
from fleet.shared_uploads import SharedUploads  # noqa: E402

PROMPT = {"1": {"class_type": "Any", "inputs": {"image": "deep/mine.png"}}}


class Running:
    """A gateway that listens, and a client of it."""

    def __init__(self, url, session, servers):
        self.url, self.session, self.servers = url, session, servers

    async def get(self, path, **more):
        async with self.session.get(self.url + path, **more) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if answer.content_type == "application/json" else body

    async def post(self, path, document=None, **more):
        async with self.session.post(self.url + path, json=document, **more) as answer:
            return answer.status, await answer.json(content_type=None) if answer.content_length else None

    async def upload(self, name, content, **fields):
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type="image/png")
        for key, value in fields.items():
            form.add_field(key, value)
        async with self.session.post(self.url + "/upload/image", data=form) as answer:
            return await answer.json()

    @contextlib.asynccontextmanager
    async def socket(self, client_id):
        """The messages of a client."""
        async with self.session.ws_connect(f"{self.url}/ws?clientId={client_id}") as socket:
            yield socket


@pytest.fixture
def folders():
    """``folder_paths`` as it was before."""
    kinds = ("input", "temp", "output", "user")
    before = {kind: getattr(folder_paths, f"get_{kind}_directory")() for kind in kinds}
    yield
    for kind, path in before.items():
        getattr(folder_paths, f"set_{kind}_directory")(path)


@pytest.fixture
async def start(tmp_path, folders):
    """``await start(script, …)``: a gateway before a server for each script."""
    async with contextlib.AsyncExitStack() as stack:

        async def starting(*scripts, cache_providers=(), **settings):
            servers = [await stack.enter_async_context(ScriptedServer(script)) for script in scripts]
            fleet = StaticFleet({f"s{number}": f"http://{one.host}" for number, one in enumerate(servers, 1)}, **settings)
            await fleet.start()
            stack.push_async_callback(fleet.close)
            port = _free_port()
            gateway = Gateway(fleet, GatewaySettings(str(tmp_path), port=port, cache_providers=cache_providers))
            listening = TestServer(gateway.make_app(), port=port)
            await listening.start_server()
            stack.push_async_callback(listening.close)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Running(f"http://127.0.0.1:{port}", session, servers)

        yield starting


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def heard(socket, kind, **wanted):
    """The next message of a kind whose data holds *wanted*."""
    async with asyncio.timeout(30):
        async for frame in socket:
            message = json.loads(frame.data)
            if message["type"] == kind and all(message["data"].get(key) == value for key, value in wanted.items()):
                return message["data"]
    raise AssertionError("the socket was closed")


async def test_a_file_goes_to_the_server_that_needs_it_once(start):
    gateway = await start(succeed)
    assert await gateway.upload("mine.png", b"one", subfolder="deep") == {"name": "mine.png", "subfolder": "deep", "type": "input"}
    for _ in range(2):
        assert (await gateway.post("/prompt", {"prompt": PROMPT}))[0] == 200
    assert gateway.servers[0].uploads == {"mine.png": b"one"} and gateway.servers[0].upload_count == 1
    await gateway.upload("mine.png", b"two", subfolder="deep", overwrite="true")
    assert (await gateway.post("/prompt", {"prompt": PROMPT}))[0] == 200
    assert gateway.servers[0].uploads == {"mine.png": b"two"}
    assert (await gateway.get("/view?filename=mine.png&subfolder=deep&type=input"))[1] == b"two"
    assert (await gateway.get(f"/fleet/inputs/{'0' * 64}/input/deep/mine.png"))[0] == 404


async def test_an_upload_goes_where_results_are_shared(start, tmp_path):
    place = f"file://{tmp_path}/results"
    gateway = await start(succeed, cache_providers=(place,))
    await gateway.upload("mine.png", b"one", subfolder="deep")
    assert (await gateway.post("/prompt", {"prompt": PROMPT}))[0] == 200
    uploads = SharedUploads([place])
    assert await uploads.fetch(blake3(b"one").hexdigest(), 3) == b"one"
    await uploads.close()


async def test_messages_name_the_server_and_the_end_comes_last(start):
    async def show(server, prompt_id):
        outputs = {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}
        await server.send("executing", {"node": "1", "prompt_id": prompt_id})
        await server.send("executed", {"node": "1", "prompt_id": prompt_id, "output": outputs})
        await server.end(prompt_id, {"1": outputs})

    gateway = await start(show)
    async with gateway.socket("me") as socket:
        assert (await heard(socket, "status"))["sid"] == "me"
        _, answer = await gateway.post("/prompt", {"prompt": PROMPT, "client_id": "me"})
        shown = await heard(socket, "executed", prompt_id=answer["prompt_id"])
        await heard(socket, "executing", node=None, prompt_id=answer["prompt_id"])
        _, history = await gateway.get(f"/history/{answer['prompt_id']}")
        (image,) = history[answer["prompt_id"]]["outputs"]["1"]["images"]
        assert image == shown["output"]["images"][0] == {"filename": "x.png", "subfolder": "@s1", "type": "output"}
        assert (await gateway.get("/view", params=image))[1] == PICTURE
        assert (await gateway.get("/prompt"))[1]["exec_info"]["queue_remaining"] == 0


async def test_a_client_is_told_what_its_dead_server_cannot_say(start):
    gateway = await start(hang)
    async with gateway.socket("me") as socket:
        _, answer = await gateway.post("/prompt", {"prompt": PROMPT, "client_id": "me"})
        await heard(socket, "executing", node="1")
        await gateway.servers[0].vanish()
        error = await heard(socket, "execution_error", prompt_id=answer["prompt_id"])
        assert error["exception_type"] == "ServerLost" and error["node_id"] == "1" and "died" in error["exception_message"]
        await heard(socket, "executing", node=None, prompt_id=answer["prompt_id"])
    _, history = await gateway.get(f"/history/{answer['prompt_id']}")
    assert history[answer["prompt_id"]]["status"]["status_str"] == "error"
    status, refused = await gateway.post("/prompt", {"prompt": PROMPT})
    assert status in (502, 503) and refused["error"]["type"] in ("no_server", "server_lost")


async def until_gone(gateway):
    """Return when the fleet knows that its only server is gone."""
    async with asyncio.timeout(30):
        while (await gateway.get("/fleet/state"))[1]["servers"][0]["state"] != "gone":
            await asyncio.sleep(0.02)


async def test_an_end_that_was_told_outlives_its_server(start):
    gateway = await start(succeed)
    async with gateway.socket("me") as socket:
        _, answer = await gateway.post("/prompt", {"prompt": PROMPT, "client_id": "me"})
        await heard(socket, "execution_success", prompt_id=answer["prompt_id"])
        await gateway.servers[0].vanish()
        await heard(socket, "executing", node=None, prompt_id=answer["prompt_id"])
        await until_gone(gateway)
        _, history = await gateway.get(f"/history/{answer['prompt_id']}")
        assert history[answer["prompt_id"]]["status"]["status_str"] == "success"


async def test_an_end_that_was_asked_for_outlives_its_server(start):
    gate = asyncio.Event()

    async def end_silently(server, prompt_id):
        await gate.wait()
        server.remember(prompt_id, {"1": {}})

    gateway = await start(end_silently)
    _, answer = await gateway.post("/prompt", {"prompt": PROMPT})
    path = f"/history/{answer['prompt_id']}"
    gate.set()
    while not (told := (await gateway.get(path))[1]):
        pass
    await gateway.servers[0].vanish()
    await until_gone(gateway)
    assert (await gateway.get(path))[1] == told and told[answer["prompt_id"]]["status"]["status_str"] == "success"


async def test_success_is_not_told_when_its_record_was_lost(start):
    gate = asyncio.Event()

    async def die_before_the_record(server, prompt_id):
        await server.send("executing", {"node": "1", "prompt_id": prompt_id})
        await gate.wait()
        await server.send("execution_success", {"prompt_id": prompt_id})
        await server.vanish()

    gateway, kinds = await start(die_before_the_record), []
    async with gateway.socket("me") as socket:
        _, answer = await gateway.post("/prompt", {"prompt": PROMPT, "client_id": "me"})
        await heard(socket, "executing", node="1")
        gate.set()
        async with asyncio.timeout(30):
            async for frame in socket:
                message = json.loads(frame.data)
                kinds.append(message["type"])
                if message["type"] == "executing" and message["data"]["node"] is None:
                    break
    assert "execution_error" in kinds and "execution_success" not in kinds
    _, history = await gateway.get(f"/history/{answer['prompt_id']}")
    assert history[answer["prompt_id"]]["status"]["messages"][0][1]["exception_type"] == "ServerLost"


async def test_what_follows_an_end_waits_for_it_and_keeps_its_order():
    noted, asked, told = asyncio.Event(), [], []

    async def note(prompt_id, server_id):
        asked.append((prompt_id, server_id))
        await noted.wait()
        return prompt_id != "b"

    ends = HeldEnds(note)

    def say(kind, server_id="s", **data):
        ends.take(("me", server_id), kind, data, lambda: told.append((kind, *data.values())))

    say("executing", prompt_id="a", node="1")
    assert told == [("executing", "a", "1")]
    say("execution_success", prompt_id="a")
    say("executing", prompt_id="a", node=None)
    say("execution_start", prompt_id="b")
    say("executing", prompt_id="b", node=None)
    say("execution_start", prompt_id="c")
    say("execution_start", "t", prompt_id="d")
    assert told == [("executing", "a", "1"), ("execution_start", "d")], "other servers are not held up"
    noted.set()
    async with asyncio.timeout(30):
        while len(told) < 6:
            await asyncio.sleep(0)
    after = [("execution_success", "a"), ("executing", "a", None), ("execution_start", "b"), ("execution_start", "c")]
    assert told[2:] == after and asked == [("a", "s"), ("b", "s")], "the fleet will tell how b ended"
    say("executing", prompt_id="c", node="1")
    assert told[-1] == ("executing", "c", "1")
    await ends.close()


async def test_a_full_fleet_says_when_to_come_again(start):
    gateway = await start(hang, most_per_server=1)
    assert (await gateway.post("/prompt", {"prompt": PROMPT}))[0] == 200
    async with gateway.session.post(gateway.url + "/prompt", json={"prompt": PROMPT}) as answer:
        assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
    async with gateway.session.post(gateway.url + "/api/v2/jobs", json={"workflow": PROMPT}) as answer:
        assert answer.status == 429 and (await answer.json())["error"]["code"] == "queue_full" and "Retry-After" in answer.headers


async def test_a_job_of_comfy_api_v2(start):
    gateway = await start(succeed)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    status, job = await gateway.post("/api/v2/jobs", {"workflow": PROMPT, "metadata": {"a": "b"}}, headers=headers)
    assert status == 201 and job["metadata"] == {"a": "b"}
    async with gateway.session.get(job["urls"]["events"]) as stream:
        text = (await stream.read()).decode()
    assert text.rstrip().endswith('data: {"status":"succeeded"}') and "event: output" in text
    _, job = await gateway.get(job["urls"]["self"].removeprefix(gateway.url))
    assert job["status"] == "succeeded" and (await gateway.get(f"/api/v2/assets/{job['outputs'][0]['id']}/content"))[1] == PICTURE
    status, refused = await gateway.post("/api/v2/jobs", {"workflow": PROMPT}, headers=headers)
    assert (status, refused["error"]["code"]) == (422, "idempotency_key_reuse")
