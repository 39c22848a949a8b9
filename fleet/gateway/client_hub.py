"""The sockets of the gateway's clients: each hears what all servers of the fleet say to its client id."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import aiohttp

from app.sockets.hub import WebSocketHub, text_frame, topic_of
from app.sockets.outbox import Frame
from fleet.gateway.client_links import ClientLinks
from fleet.gateway.file_marks import marked_outputs
from fleet.gateway.held_ends import ENDS, HeldEnds, Note
from fleet.gateway.queue_count import QueueCount
from fleet.gateway.server_features import ServerFeatures
from fleet.gateway.server_list import ServerList

MOST_REMEMBERED = 10_000
LOST = "ServerLost"


class ClientHub(WebSocketHub):
    """``/ws`` of the gateway. For every client it opens a socket to each server and passes on what comes, with these changes: files are
    named with their server, ``status`` counts the whole fleet, and the end of a job is told once *note* has had the fleet note it. On the
    gateway's loop; ``close_links`` ends it."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], servers: ServerList, count: QueueCount, features: ServerFeatures, note: Note
    ) -> None:
        super().__init__(lambda client_id: {"status": count.message(), "sid": client_id}, lambda client_id: [])
        self._session = session
        self._servers = servers
        self._count = count
        self._features = features
        self._ends = HeldEnds(note)
        self._links: dict[str, ClientLinks] = {}
        self._nodes: OrderedDict[str, str] = OrderedDict()
        self._told_end: OrderedDict[str, None] = OrderedDict()
        self._background: set[asyncio.Task[None]] = set()
        servers.changed.append(self._follow)

    def joined(self, client_id: str) -> None:
        """Listen for the client. One that takes its id over gets new sockets, so that servers tell it what runs."""
        self.left(client_id)
        links = self._links[client_id] = ClientLinks(self._session(), client_id, _Ear(self, client_id))
        links.follow(self._servers.reachable())

    def left(self, client_id: str) -> None:
        """Listen no more."""
        links = self._links.pop(client_id, None)
        if links is not None:
            self._in_background(links.close())

    def told_features(self, client_id: str) -> None:
        """Have servers send what the client can read."""
        if client_id in self._links:
            self._links[client_id].announce(dict(self.sockets_metadata[client_id]["feature_flags"]))

    def features(self) -> dict[str, Any]:
        """What its servers can do."""
        return self._features.all()

    def expects(self, prompt_id: str) -> None:
        """A job of this id, perhaps of an earlier one's id, is about to be sent."""
        self._told_end.pop(prompt_id, None)
        self._nodes.pop(prompt_id, None)

    async def ready(self, client_id: str | None) -> None:
        """Return when a client that is connected here will miss nothing of a prompt that is sent now."""
        links = self._links.get(client_id) if client_id is not None else None
        if links is not None:
            await links.ready()

    def broadcast_status(self) -> None:
        """Tell every client how many jobs the fleet has."""
        self.deliver(text_frame("status", {"status": self._count.message()}), None)

    def pass_on_text(self, client_id: str, server_id: str, text: str, message: dict[str, Any]) -> None:
        """A message of a server to one of its clients."""
        kind, data = str(message.get("type")), message.get("data")
        self._ends.take((client_id, server_id), kind, data, lambda: self._pass_on(client_id, server_id, text, kind, data))

    def _pass_on(self, client_id: str, server_id: str, text: str, kind: str, data: Any) -> None:
        if kind == "status":
            self._count.ask_soon()
            self.deliver(text_frame("status", {"status": self._count.message()}), client_id)
            return
        prompt_id = data.get("prompt_id") if isinstance(data, dict) else None
        if isinstance(data, dict) and isinstance(prompt_id, str):
            if prompt_id in self._told_end and (kind in ENDS or kind == "executing"):
                return  # the fleet was quicker
            self._note(kind, prompt_id, data)
            if kind == "executed":
                self.deliver(text_frame(kind, {**data, "output": marked_outputs(data.get("output"), server_id)}), client_id)
                return
        self.deliver(Frame(text, topic_of(kind, data)), client_id)

    def _note(self, kind: str, prompt_id: str, data: Mapping[str, Any]) -> None:
        if kind in ENDS:
            self._count.is_over(prompt_id)
        elif kind == "executing":
            node = data.get("node")
            if node is None:
                _remember(self._told_end, prompt_id, None)
                self._count.is_over(prompt_id)
            else:
                _remember(self._nodes, prompt_id, str(node))

    def tell_end(self, client_id: str, prompt_id: str, failure: str | None) -> None:
        """Tell a client what its server could not: that a job ended, and, if it is lost, why. Nothing if the client knows."""
        if prompt_id in self._told_end:
            return
        _remember(self._told_end, prompt_id, None)
        self._count.is_over(prompt_id)
        if failure is not None:
            self.deliver(text_frame("execution_error", self.lost_error(prompt_id, failure)), client_id)
        self.deliver(text_frame("status", {"status": self._count.message()}), client_id)
        self.deliver(text_frame("executing", {"node": None, "display_node": None, "prompt_id": prompt_id}), client_id)

    def lost_error(self, prompt_id: str, failure: str) -> dict[str, Any]:
        """The data of an ``execution_error`` that says why a job is lost."""
        return {
            "prompt_id": prompt_id,
            "node_id": self._nodes.get(prompt_id, ""),
            "node_type": "",
            "executed": [],
            "exception_message": failure,
            "exception_type": LOST,
            "traceback": [],
            "current_inputs": {},
            "current_outputs": [],
            "timestamp": int(time.time() * 1000),
        }

    def pass_on_bytes(self, client_id: str, server_id: str, frame: bytes) -> None:
        """A binary frame, which the server made in the form that the client can read."""
        self._ends.take((client_id, server_id), "", None, lambda: self.deliver(Frame(frame), client_id))

    def connected_clients(self) -> Iterator[str]:
        """The ids of the clients that are connected here."""
        yield from self._links

    async def close_links(self) -> None:
        """Disconnect from all servers."""
        await self._ends.close()
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(one.close() for one in links), *self._background, return_exceptions=True)

    def _follow(self) -> None:
        for links in self._links.values():
            links.follow(self._servers.reachable())

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _Ear:
    """Hears servers for one client."""

    def __init__(self, hub: ClientHub, client_id: str) -> None:
        self._hub, self._client_id = hub, client_id

    def heard_text(self, server_id: str, text: str, message: dict[str, Any]) -> None:
        self._hub.pass_on_text(self._client_id, server_id, text, message)

    def heard_bytes(self, server_id: str, frame: bytes) -> None:
        self._hub.pass_on_bytes(self._client_id, server_id, frame)


def _remember(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MOST_REMEMBERED:
        table.popitem(last=False)
