"""A PromptServer on folders of its own, with an engine that accepts what a test tells it to."""

import asyncio
import contextlib
import json

import pytest

import execution
import folder_paths
import nodes
import server as server_module
from comfy.cli_args import args


@pytest.fixture
def flags():
    """Values of ``args`` that a test wants; give them with ``parametrize("flags", [{…}])``."""
    return {}


@pytest.fixture
def settings(flags, monkeypatch, tmp_path):
    """Puts *flags* and a page of its own into ``args``."""
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<html>the page</html>")
    for name, value in {"front_end_root": str(page), **flags}.items():
        monkeypatch.setattr(args, name, value)


@pytest.fixture
def node_classes(monkeypatch):
    """The node tables, empty."""
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {})
    monkeypatch.setattr(nodes, "NODE_DISPLAY_NAME_MAPPINGS", {})
    return nodes.NODE_CLASS_MAPPINGS


class Engine:
    """Takes the place of ``execution.validate_prompt``: keeps what it was asked and answers ``verdict``."""

    def __init__(self):
        self.asked = []
        self.verdict = (True, None, ["9"], {})

    async def validate_prompt(self, prompt_id, prompt, targets):
        self.asked.append((prompt_id, prompt, targets))
        return self.verdict


@pytest.fixture
def engine(monkeypatch):
    made = Engine()
    monkeypatch.setattr(execution, "validate_prompt", made.validate_prompt)
    return made


@pytest.fixture
async def server(settings, node_classes, engine, tmp_path, monkeypatch):
    """A server without routes yet, so that a test can add its own; its messages are being sent."""
    for name in ("input", "output", "temp", "user"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setattr(nodes, "LOADED_MODULE_DIRS", {})
    monkeypatch.setattr(nodes, "EXTENSION_WEB_DIRS", {})
    monkeypatch.setattr(server_module.PromptServer, "instance", None, raising=False)
    made = server_module.PromptServer(asyncio.get_running_loop())
    publishing = asyncio.create_task(made.publish_loop())
    yield made
    publishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await publishing
    await made.close()


@pytest.fixture
async def client(server, aiohttp_client):
    """A client of the complete application."""
    server.add_routes()
    return await aiohttp_client(server.app)


@pytest.fixture
def interrupts(monkeypatch):
    """A list that grows with every call of ``nodes.interrupt_processing``."""
    calls = []
    monkeypatch.setattr(nodes, "interrupt_processing", lambda value=True: calls.append(value))
    return calls


class Messages:
    """Reads one socket of the test client."""

    def __init__(self, socket):
        self.socket = socket

    async def text(self):
        return (await asyncio.wait_for(self.socket.receive(), 5)).data

    async def next(self):
        return json.loads(await self.text())

    async def binary(self):
        data = (await asyncio.wait_for(self.socket.receive(), 5)).data
        assert isinstance(data, bytes)
        return data

    async def flags(self, **features):
        """Tell features and return the server's."""
        await self.socket.send_json({"type": "feature_flags", "data": features})
        answer = await self.next()
        assert answer["type"] == "feature_flags"
        return answer["data"]


@pytest.fixture
def connect(client):
    """``await connect("id")``: a socket whose first status message has been read, unless ``greeted=False``."""

    async def open_socket(client_id="me", greeted=True, path="/ws"):
        query = {"clientId": client_id} if client_id else {}
        messages = Messages(await client.ws_connect(path, params=query))
        if greeted:
            assert (await messages.next())["type"] == "status"
        return messages

    return open_socket
