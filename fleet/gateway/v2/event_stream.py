"""``/api/v2/jobs/{id}/events``: what happens to one job, as server-sent events. The job itself is asked beside it: it has the truth."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from fleet.gateway.v2.job_view import TERMINAL, Known, output_body
from fleet.gateway.v2.outputs import output_files
from fleet.gateway.v2.stories import Preview, Story

LEAST_PAUSE_S = 0.25
ASK_S = 2.0
HEARTBEAT_S = 15.0


class EventStream:
    """One client's stream, from a snapshot to the job's end. *known* asks for the job; *story* is what this gateway hears of it."""

    def __init__(self, known: Callable[[], Awaitable[Known]], story: Story, base: str) -> None:
        self._known, self._story, self._base = known, story, base
        self._status: dict[str, Any] = {}
        self._progress: dict[str, Any] = {}
        self._preview: Preview | None = None
        self._sent_outputs: set[str] = set()
        self._sent_s = time.monotonic()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send events until the job has ended or the client has left."""
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        with self._story.watched() as changed:
            try:
                while not await self._send_news(response):
                    await self._wait(changed)
                await response.write_eof()
            except ConnectionError:
                return response
        return response

    async def _wait(self, changed: asyncio.Event) -> None:
        """Until something was heard, and not too soon; else until it is time to ask."""
        await asyncio.sleep(LEAST_PAUSE_S)
        if not self._story.has_ended:
            try:
                async with asyncio.timeout(ASK_S - LEAST_PAUSE_S):
                    await changed.wait()
            except TimeoutError:
                return
        changed.clear()

    async def _send_news(self, response: web.StreamResponse) -> bool:
        """Send what is new; whether the job has ended."""
        known = await self._known()
        body = known.body(self._base)
        has_ended = body["status"] in TERMINAL
        status = {"status": body["status"], **({"queue_position": body["queue_position"]} if body["queue_position"] is not None else {})}
        if status != self._status and not has_ended:
            await self._send(response, "status", status)
        self._status = status
        if body["progress"] is not None and body["progress"] != self._progress:
            self._progress = body["progress"]
            await self._send(response, "progress", body["progress"])
        if self._story.preview is not None and self._story.preview is not self._preview:
            self._preview = self._story.preview
            await self._send(response, "preview", preview_body(self._preview))
        for output in body["outputs"] or [output_body(file, self._base, 0) for file in output_files(known.prompt_id, self._story.outputs)]:
            if output["id"] not in self._sent_outputs:
                self._sent_outputs.add(output["id"])
                await self._send(response, "output", output)
        if has_ended:
            # Last, for clients leave when they hear of the end.
            await self._send(response, "status", status)
        elif time.monotonic() - self._sent_s > HEARTBEAT_S:
            await self._write(response, b": still here\n\n")
        return has_ended

    async def _send(self, response: web.StreamResponse, event: str, data: dict[str, Any]) -> None:
        await self._write(response, f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode())

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        self._sent_s = time.monotonic()
        await response.write(data)


def preview_body(preview: Preview) -> dict[str, Any]:
    """The ``preview`` event of the API."""
    content = base64.b64encode(preview.content).decode("ascii")
    return {"node_id": preview.node_id, "content_type": preview.content_type, "data_base64": content}
