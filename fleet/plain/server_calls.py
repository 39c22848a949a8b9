"""What a plain fleet asks one server over HTTP."""

import json
from typing import Any

import aiohttp

from fleet.server_http import submit_prompt
from serverless.server_api import ServerAnswer, ServerApi


class ServerCalls:
    """The routes of one server; close ``api`` on the loop that used it. All raise ``ServerUnreachable`` and ``ServerAnswer``."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.api = ServerApi(base_url)

    async def submit(self, body: dict[str, Any], usage_source: str | None) -> tuple[int, bytes]:
        """(status, body) of ``POST /prompt``."""
        return await submit_prompt(self.api, body, usage_source)

    async def queue(self) -> tuple[set[str], set[str]]:
        """Ids of what runs, and of what waits."""
        told = await self.api.get_json("/queue")
        rows = [told.get(name) or () for name in ("queue_running", "queue_pending")] if isinstance(told, dict) else [(), ()]
        running, waiting = ({str(row[1]) for row in part if isinstance(row, list) and len(row) > 1} for part in rows)
        return running, waiting

    async def find(self, prompt_id: str) -> tuple[str, dict[str, Any] | None]:
        """Where a prompt is: ``("ended", entry)``, ``("running", None)``, ``("waiting", None)`` or ``("unknown", None)``.

        A prompt goes from the queue to the history in one step, so asking the history again settles what seems to be in neither.
        """
        for is_last in (False, True):
            entry = await self.api.history_entry(prompt_id)
            if entry is not None:
                return "ended", entry
            if not is_last:
                running, waiting = await self.queue()
                if prompt_id in running:
                    return "running", None
                if prompt_id in waiting:
                    return "waiting", None
        return "unknown", None

    async def cancel(self, prompt_id: str) -> bool:
        """Stop a prompt, whether it waits or runs; whether the server acted."""
        try:
            told = json.loads(await self.api.post(f"/api/jobs/{prompt_id}/cancel", {}))
            return bool(isinstance(told, dict) and told.get("cancelled"))
        except ServerAnswer as error:
            if error.status not in (404, 405):
                raise
        # Servers of before the jobs API: withdraw it, and interrupt it if it runs.
        await self.api.unqueue(prompt_id)
        running, waiting = await self.queue()
        if prompt_id in running:
            await self.api.interrupt(prompt_id)
        return prompt_id in running or prompt_id not in waiting

    async def put_file(self, name: str, subfolder: str, kind: str, content: bytes) -> None:
        """Store a file in the input, output or temp folder under exactly that name."""
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type="application/octet-stream")
        for key, value in (("overwrite", "true"), ("type", kind), ("subfolder", subfolder)):
            form.add_field(key, value)
        await self.api.post_form("/upload/image", form)
