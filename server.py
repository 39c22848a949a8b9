"""The HTTP and WebSocket server, under the names that node packs and scripts use; the work is done in ``app`` and ``middleware``."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import aiohttp
from aiohttp import web

import execution
from app.files.body_budget import BODIES, BodyBudget
from app.read_ahead.reader import ReadAhead
from app.routes.cache_summary import CacheSummary
from app.routes.caches import CacheSections
from app.running import compose
from app.running.listeners import ReservedPorts, listen, tls_context
from app.running.temp_folder import TempFolder
from app.sockets import preview_frames
from app.sockets.connection_gate import ConnectionGate
from app.sockets.hub import WebSocketHub, text_frame
from app.sockets.outbox import Frame
from app.sockets.preview_frames import EncodedPreview, ProgressText
from comfy.cli_args import args
from comfy.units import MIB
from comfy_api import feature_flags
from comfy_api.internal.replacement_receiver import replacement_receiver
from comfy_execution.executor.isolation import is_own_end, log_failure
from comfy_execution.executor.results import printable
from comfy_execution.prompt_checks.foreign_errors import is_for_the_caller
from middleware.stack import build_middlewares
from protocol import BinaryEventTypes

__all__ = ["BinaryEventTypes", "PromptServer", "uuid", "web"]  # packs use the modules uuid and web through this one

log = logging.getLogger(__name__)

OnPrompt = Callable[[dict[str, Any]], dict[str, Any]]


class PromptServer:
    """The one server of the process, ``PromptServer.instance``. Everything runs on *loop* except ``send_sync``,
    ``send_progress_text`` and ``queue_updated``, which any thread may call.

    Packs add routes to ``routes`` (or ``app``) while they load; ``add_routes`` then fixes them, and ``start_multi_address`` serves.
    ``publish_loop`` must run for anything to be sent. Messages of all threads go through ``messages``, so clients get them in the
    order of the calls.
    """

    instance: ClassVar["PromptServer"]

    def __init__(self, loop: asyncio.AbstractEventLoop, torch_is_imported: Callable[[], bool] = lambda: False) -> None:
        """*torch_is_imported* tells whether devices can be asked without being the first to import torch."""
        PromptServer.instance = self
        self.loop = loop
        self.messages: asyncio.Queue = asyncio.Queue()
        self.number = 0
        self.supports = ["custom_nodes_from_web"]
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.client_session: aiohttp.ClientSession | None = None
        self.on_prompt_handlers: list[OnPrompt] = []
        self._hub = WebSocketHub(self._greeting, self._resume)
        self.sockets = self._hub.sockets
        self.sockets_metadata = self._hub.sockets_metadata
        self._gate = ConnectionGate()
        self.reserved_ports = ReservedPorts()
        self.temp_folder: TempFolder | None = None
        self._runner: web.AppRunner | None = None
        # A thread of its own: whatever else keeps worker threads busy must not hold up messages.
        self._encoder = ThreadPoolExecutor(1, "preview-encoder")
        self.cache_sections = CacheSections()
        self.read_ahead: ReadAhead | None = None
        self.subsystems = compose.build_subsystems(self, args)
        self._name_subsystems()
        replacement_receiver.connect(self._take_replacement)
        self.prompt_queue = execution.PromptQueue(self)
        self.cache_summary = CacheSummary(lambda: self.prompt_queue)
        self.app = web.Application(
            client_max_size=round(args.max_upload_size * MIB), middlewares=[self._gate.middleware, *build_middlewares(args)]
        )
        self.app[BODIES] = BodyBudget()
        self.app.on_shutdown.append(self._disconnect_clients)
        self.routes = web.RouteTableDef()
        self._hub.add_routes(self.routes)
        compose.add_core_routes(self, self.routes, args, torch_is_imported)
        compose.let_packs_be_undone(self, self.app, self.routes)

    def _name_subsystems(self) -> None:
        parts = self.subsystems
        self.user_manager = parts.user_manager
        self.model_file_manager = parts.model_file_manager
        self.custom_node_manager = parts.custom_node_manager
        self.subgraph_manager = parts.subgraph_manager
        self.node_replace_manager = parts.node_replace_manager
        self.internal_routes = parts.internal_routes
        self.web_root = parts.web_root

    def _take_replacement(self, replacement: Any) -> None:
        self.node_replace_manager.register(replacement)

    def _greeting(self, client_id: str) -> dict[str, Any]:
        return {"status": self.get_queue_info(), "sid": client_id}

    def _resume(self, client_id: str) -> list[tuple[str, Any]]:
        if client_id != self.client_id or self.last_node_id is None:
            return []
        return [("executing", {"node": self.last_node_id, "prompt_id": self.last_prompt_id})]

    async def _disconnect_clients(self, app: web.Application) -> None:
        await self._hub.close()

    def add_routes(self) -> None:
        """Fix the routes of the server and of all packs: each is reachable as it is and under ``/api``. Once, after packs loaded."""
        compose.add_late_routes(self, self.app, self.routes)

    def get_queue_info(self) -> dict[str, Any]:
        """How many prompts wait or run, as ``status`` messages tell it."""
        return {"exec_info": {"queue_remaining": self.prompt_queue.get_tasks_remaining()}}

    def queue_updated(self) -> None:
        """Tell all clients how many prompts there are. Any thread."""
        self.send_sync("status", {"status": self.get_queue_info()})

    def add_on_prompt_handler(self, handler: OnPrompt) -> None:
        """Let *handler* rewrite the body of each ``POST /prompt``."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """The body after all handlers; one that fails or returns something else than an object is logged and passed over."""
        for handler in self.on_prompt_handlers:
            try:
                rewritten = handler(json_data)
            except BaseException as error:
                if is_for_the_caller(error):
                    raise
                log_failure(log, f"The on_prompt handler {printable(handler)} failed; the prompt goes on without it", error)
                continue
            if isinstance(rewritten, dict):
                json_data = rewritten
            else:
                log.warning("The on_prompt handler %r returned %s instead of the prompt's body", handler, type(rewritten).__name__)
        return json_data

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Queue a message to client *sid*, or to all. Any thread; never blocks; nothing happens after the loop has ended."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    def send_progress_text(self, text: str | bytes | bytearray, node_id: str, sid: str | None = None) -> None:
        """Show *text* at a node, to *sid* or else to the owner of the running prompt; not sent without one. Any thread."""
        recipient = sid if sid is not None else self.client_id
        if recipient is not None:
            encoded = text.encode() if isinstance(text, str) else bytes(text)
            self.send_sync(BinaryEventTypes.TEXT, ProgressText(str(node_id), encoded, self.last_prompt_id), recipient)

    async def publish_loop(self) -> None:
        """Send what ``send_sync`` queued, forever. A message that cannot be sent is logged."""
        while True:
            message = await self.messages.get()
            try:
                await self.send(*message)
            except BaseException as error:
                if is_own_end(error, asyncio.current_task()):
                    raise
                log_failure(log, f"A message of type {printable(message[0])!r} could not be sent", error)

    async def send(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send a message to client *sid*, or to all: pictures and bytes as binary frames, anything else as JSON.

        Hands the frame over without waiting for slow clients. Raises for data that cannot be sent.
        """
        if event == BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
            await self.send_image(data, sid)
        elif event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA and isinstance(data, tuple):
            image, metadata = data
            await self.send_image_with_metadata(image, metadata, sid)
        elif isinstance(data, ProgressText):
            self._send_text(data, sid)
        elif isinstance(data, bytes | bytearray):
            await self.send_bytes(event, data, sid)
        else:
            await self.send_json(event, data, sid)

    async def send_json(self, event: str, data: Any, sid: str | None = None) -> None:
        """Send ``{"type": event, "data": data}``."""
        if self._hub.recipients(sid):
            self._hub.deliver(text_frame(event, data), sid)

    async def send_bytes(self, event: int, data: bytes | bytearray, sid: str | None = None) -> None:
        """Send *data* after the event's number."""
        self._hub.deliver(Frame(self.encode_bytes(event, data)), sid)

    def encode_bytes(self, event: int, data: bytes | bytearray) -> bytes:
        """The binary frame of *event* and *data*."""
        return preview_frames.encode_event(event, data)

    async def send_image(self, image_data: tuple[str, Any, int | None], sid: str | None = None) -> None:
        """Send a picture ``(format, PIL image, longest side or None)``; it is encoded on a worker thread."""
        await self.send_image_with_metadata(image_data, None, sid)

    async def send_image_with_metadata(
        self, image_data: tuple[str, Any, int | None], metadata: dict[str, Any] | None = None, sid: str | None = None
    ) -> None:
        """The same with *metadata* for the clients that take it; all others get the picture alone."""
        if not self._hub.recipients(sid):
            return
        preview = await self.loop.run_in_executor(self._encoder, preview_frames.encode_preview_image, image_data)
        for recipient in self._hub.recipients(sid):
            self._hub.deliver(self._preview_frame(preview, metadata, recipient), recipient)

    def _preview_frame(self, preview: EncodedPreview, metadata: dict[str, Any] | None, recipient: str) -> Frame:
        topic = ("preview", (metadata or {}).get("node_id")) if preview.replaceable else None
        if metadata is not None and self._hub.supports(recipient, "supports_preview_metadata"):
            return Frame(preview.frame_with(metadata), topic)
        return Frame(preview.plain_frame(), topic)

    def _send_text(self, text: ProgressText, sid: str | None) -> None:
        """Send progress text, with the prompt's id where server and client both announced that they know this form."""
        announced = feature_flags.SERVER_FEATURE_FLAGS.get("supports_progress_text_metadata") is True
        for recipient in self._hub.recipients(sid):
            with_prompt = announced and self._hub.supports(recipient, "supports_progress_text_metadata")
            self._hub.deliver(Frame(text.frame(with_prompt=with_prompt)), recipient)

    async def setup(self) -> None:
        """Open ``client_session``, with which packs make requests of their own."""
        if self.client_session is None:
            self.client_session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))

    async def start(self, address: str, port: int, verbose: bool = True, call_on_start: Callable[..., None] | None = None) -> None:
        """Listen on one address; see ``start_multi_address``."""
        await self.start_multi_address([(address, port)], call_on_start, verbose)

    async def start_multi_address(
        self, addresses: Iterable[tuple[str, int]], call_on_start: Callable[..., None] | None = None, verbose: bool = True
    ) -> None:
        """Listen on every (address, port) and return; ``call_on_start(scheme, address, port)`` is then called for the first.

        Uses TLS when the settings name a key and certificate. Raises ``SystemExit(1)`` when a port is taken.
        """
        await self.setup()
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=2.0, auto_decompress=False)
        await self._runner.setup()
        if self._runner.server is not None:
            self._gate.guard(self._runner.server)
        listeners = await listen(self._runner, addresses, tls_context(args.tls_keyfile, args.tls_certfile), self.reserved_ports)
        self.address, self.port = listeners[0].address, listeners[0].port
        if verbose:
            for listener in listeners:
                log.info("To see the GUI go to: %s", listener.url)
        if call_on_start is not None:
            call_on_start(listeners[0].scheme, self.address, self.port)

    async def close(self) -> None:
        """Stop listening and disconnect every client."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self.client_session is not None:
            await self.client_session.close()
            self.client_session = None
        self._encoder.shutdown(wait=False)
