"""A server with ComfyUI's routes whose prompts do what a test says. Like ComfyUI it has neither receipts nor ``/caches``."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

Script = Callable[["ScriptedServer", str], Awaitable[None]]
PICTURE = b"\x89PNG picture"


async def succeed(server: "ScriptedServer", prompt_id: str) -> None:
    """Run one node, leave one picture."""
    await server.send("execution_start", {"prompt_id": prompt_id})
    await server.send("executing", {"node": server.first_node(prompt_id), "prompt_id": prompt_id})
    await server.end(prompt_id, {server.first_node(prompt_id): {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}})


async def hang(server: "ScriptedServer", prompt_id: str) -> None:
    """Run until somebody interrupts."""
    await server.send("executing", {"node": server.first_node(prompt_id), "prompt_id": prompt_id})
    await server.interrupted.wait()
    data = {"prompt_id": prompt_id, "node_id": server.first_node(prompt_id), "node_type": "Slow", "executed": []}
    await server.send("execution_interrupted", data)
    await server.end(prompt_id, {}, "error", [["execution_interrupted", data]])


class ScriptedServer:
    """``async with ScriptedServer() as server``; ``server.host`` is where it listens."""

    def __init__(self, script: Script = succeed, takes_ids: bool = True) -> None:
        """*takes_ids*: whether the client may choose the prompt id, which old servers ignore."""
        self.script = script
        self.takes_ids = takes_ids
        self.bodies: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.upload_count = 0
        self.files: dict[str, bytes] = {"x.png": PICTURE}
        self.history: dict[str, dict[str, Any]] = {}
        self.prompts: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.interrupts: list[Any] = []
        self.interrupted = asyncio.Event()
        self.sockets: list[web.WebSocketResponse] = []
        self.connects = 0
        self.refusal: tuple[int, Any] | None = None
        self.object_info: dict[str, Any] = {}
        self.info_requests: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ScriptedServer":
        app = web.Application()
        app.add_routes(
            [
                web.get("/ws", self._ws),
                web.post("/prompt", self._prompt),
                web.get("/history/{id}", self._history),
                web.get("/queue", self._queue),
                web.post("/queue", self._unqueue),
                web.post("/interrupt", self._interrupt),
                web.post("/upload/image", self._upload),
                web.get("/view", self._view),
                web.get("/object_info/{name}", self._object_info),
                web.get("/system_stats", self._system_stats),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.listen(0)
        return self

    async def listen(self, port: int) -> None:
        """Take connections (again)."""
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]
        self.host = f"127.0.0.1:{self.port}"

    async def vanish(self) -> None:
        """As if the process had died: nobody listens, sockets are closed, nothing is remembered."""
        await self._site.stop()
        self.sockets = []
        for connection in list(self._runner.server.connections):
            connection.transport.abort()
        self.history, self.running, self.waiting = {}, [], []

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    def first_node(self, prompt_id: str) -> str:
        """The id of a prompt's first node."""
        return next(iter(self.prompts[prompt_id]))

    async def send(self, kind: str, data: dict[str, Any]) -> None:
        """A message to every socket."""
        for socket in self.sockets:
            if not socket.closed:
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    async def drop_sockets(self) -> None:
        """Cut every socket off without a farewell."""
        sockets, self.sockets = self.sockets, []
        for socket in sockets:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    def remember(self, prompt_id: str, outputs: dict[str, Any], status: str = "success", messages: Any = ()) -> None:
        """Move a prompt into the history without telling anybody."""
        self.running.remove(prompt_id)
        self.history[prompt_id] = {
            "prompt": [],
            "outputs": outputs,
            "status": {"status_str": status, "completed": status == "success", "messages": list(messages)},
        }

    async def end(self, prompt_id: str, outputs: dict[str, Any], status: str = "success", messages: Any = ()) -> None:
        """In ComfyUI's order: success is told before the history has it, the end after."""
        if status == "success":
            await self.send("execution_success", {"prompt_id": prompt_id})
            await asyncio.sleep(0)
        self.remember(prompt_id, outputs, status, messages)
        await self.send("executing", {"node": None, "prompt_id": prompt_id})

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connects += 1
        self.sockets.append(socket)
        await socket.send_str(json.dumps({"type": "status", "data": {"sid": request.query["clientId"]}}))
        async for frame in socket:
            assert frame.type is not aiohttp.WSMsgType.BINARY
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        prompt_id = body["prompt_id"] if self.takes_ids else f"own-{len(self.bodies)}"
        self.prompts[prompt_id] = body["prompt"]
        self.running.append(prompt_id)
        task = asyncio.get_running_loop().create_task(self.script(self, prompt_id))
        self._tasks.add(task)
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": {}})

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _queue(self, request: web.Request) -> web.Response:
        rows = [[[0, prompt_id, {}, {}, []] for prompt_id in ids] for ids in (self.running, self.waiting)]
        return web.json_response({"queue_running": rows[0], "queue_pending": rows[1]})

    async def _unqueue(self, request: web.Request) -> web.Response:
        for prompt_id in (await request.json())["delete"]:
            if prompt_id in self.waiting:
                self.waiting.remove(prompt_id)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.interrupts.append((await request.json()).get("prompt_id"))
        self.interrupted.set()
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form["image"]
        assert form["overwrite"] == "true" and image.content_type in ("image/png", "application/octet-stream")
        self.upload_count += 1
        if image.filename == "refused.png":
            return web.Response(status=400, text="not this one")
        self.uploads[image.filename] = image.file.read()
        return web.json_response({"name": image.filename})

    async def _view(self, request: web.Request) -> web.Response:
        data = self.files.get(request.query["filename"])
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.info_requests.append(name)
        return web.json_response({name: self.object_info[name]} if name in self.object_info else {})

    async def _system_stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {}})
