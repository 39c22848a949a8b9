"""``GET /caches/summary``: what somebody who shares out prompts must know of this server, cheap enough to be asked all the time."""

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from app.files.off_loop import off_loop
from comfy_execution.prompts.queue import PromptQueue, in_order

ENDED_SHOWN = 64


class Models(Protocol):
    """What is said of models; see ``WarmModels``. May block."""

    def describe(self) -> list[dict[str, Any]]:
        """The files in memory."""

    def cap_bytes(self) -> int:
        """How much may be kept."""

    def files(self) -> tuple[int, list[dict[str, Any]]]:
        """The files in the model folders, and the version of that list."""


class CacheSummary:
    """The route. *models* is put in once there are caches; until then no model is warm."""

    def __init__(self, queue: Callable[[], PromptQueue]) -> None:
        self._queue = queue
        self.models: Models | None = None
        self._boot = uuid.uuid4().hex
        self._version, self._digest = 0, b""

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Put ``GET /caches/summary`` into the table."""
        routes.get("/caches/summary")(self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        text, tag = await off_loop(self.read, request.query.get("files"))
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(text=text, content_type="application/json", headers=headers)

    def read(self, known_files: str | None = None) -> tuple[str, str]:
        """(JSON text, ETag). The list of files is left out for whoever has *known_files*, its version, already."""
        summary = self._summary()
        digest = hashlib.blake2b(json.dumps(summary).encode(), digest_size=12).digest()
        if digest != self._digest:
            self._digest = digest
            self._version += 1
        whole: dict[str, Any] = {"boot": self._boot, "version": self._version, **summary}
        version, files = (0, []) if self.models is None else self.models.files()
        shown = f"{self._boot[:8]}-{version}"
        whole["files_version"] = shown
        if known_files is not None and known_files != shown:
            whole["files"] = files
        return json.dumps(whole), f'"{self._boot[:8]}-{self._version}-{version}"'

    def _summary(self) -> dict[str, Any]:
        queue = self._queue()
        running, waiting = queue.get_current_queue_volatile()
        ended = queue.get_history(max_items=ENDED_SHOWN, map_function=_brief)
        return {
            "models": [] if self.models is None else self.models.describe(),
            "cap_bytes": 0 if self.models is None else self.models.cap_bytes(),
            "running": [row[1] for row in running],
            "waiting": [row[1] for row in in_order(waiting)],
            "ended": [{"prompt_id": prompt_id, **brief} for prompt_id, brief in ended.items()],
        }


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    """How a prompt ended, how long it ran, and how much of that went into reading models."""
    status = entry.get("status") or {}
    times = [message[1]["timestamp"] for message in status.get("messages") or () if "timestamp" in (message[1] or {})]
    read = sum(receipt["seconds"] for receipt in entry.get("models") or () if receipt.get("tier") == "disk")
    seconds = (times[-1] - times[0]) / 1000 if times else 0.0
    return {"status": status.get("status_str", "error"), "seconds": round(seconds, 3), "read_s": round(read, 4)}
