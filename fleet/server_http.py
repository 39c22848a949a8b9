"""What the fleet asks one server over HTTP."""

import json
from typing import Any

import aiohttp

from fleet.values import EndedPrompt, InputFile, ModelFile, ServerSummary, WarmModel
from serverless.server_api import CONNECT_TIMEOUT_S, ServerAnswer, ServerApi, ServerUnreachable

# The server checks a prompt for at most 60 s before it answers.
SUBMIT_TIMEOUT_S = 75.0


async def submit_prompt(api: ServerApi, body: dict[str, Any], usage_source: str | None) -> tuple[int, bytes]:
    """(status, body) of ``POST /prompt``. Raises ``ServerUnreachable``."""
    timeout = aiohttp.ClientTimeout(total=SUBMIT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    headers = {"Comfy-Usage-Source": usage_source} if usage_source else {}
    try:
        async with api.session.post(api.base_url + "/prompt", json=body, headers=headers, timeout=timeout) as answer:
            return answer.status, await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ServerUnreachable("POST /prompt", error) from error


class ServerHttp:
    """The routes of one server; :meth:`close` on the loop that used it. Raises ``ServerUnreachable`` and ``ServerAnswer``."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.api = ServerApi(base_url)
        self._tag, self._files_version = "", ""

    async def close(self) -> None:
        """End the connections."""
        await self.api.close()

    async def submit(self, body: dict[str, Any], usage_source: str | None) -> tuple[int, bytes]:
        """(status, body) of ``POST /prompt``."""
        return await submit_prompt(self.api, body, usage_source)

    async def summary(self) -> tuple[ServerSummary, tuple[ModelFile, ...] | None] | None:
        """The summary, and the files in the model folders where they have changed; None when nothing has changed since the last call."""
        path = f"/caches/summary?files={self._files_version}"
        try:
            async with self.api.session.get(self.base_url + path, headers={"If-None-Match": self._tag}) as answer:
                if answer.status == 304:
                    return None
                text = await answer.text()
                if answer.status != 200:
                    raise ServerAnswer("GET /caches/summary", answer.status, text)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable("GET /caches/summary", error) from error
        told = json.loads(text)
        self._tag, self._files_version = answer.headers["ETag"], told["files_version"]
        return read_summary(told), read_files(told["files"]) if "files" in told else None

    async def where(self, prompt_id: str) -> tuple[str, dict[str, Any] | None]:
        """``("ended", entry)``, ``("queued", None)`` or ``("unknown", None)``.

        A prompt goes from the queue to the history in one step, so asking the history again settles what seems to be in neither.
        """
        entry = await self.api.history_entry(prompt_id)
        if entry is None and await self.api.is_queued(prompt_id):
            return "queued", None
        entry = entry or await self.api.history_entry(prompt_id)
        return ("ended", entry) if entry is not None else ("unknown", None)

    async def cancel(self, prompt_id: str) -> None:
        """Withdraw a prompt that waits, interrupt it if it runs."""
        await self._post("/queue", {"delete": [prompt_id]})
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def interrupt(self) -> None:
        """Interrupt whatever runs."""
        await self._post("/interrupt", {})

    async def forget(self, prompt_ids: list[str]) -> None:
        """Take prompts out of the history."""
        await self._post("/history", {"delete": prompt_ids})

    async def bring(self, file: InputFile, content: bytes | None = None) -> None:
        """Store *file* in the server's folder under exactly that name: *content*, or what is fetched from its URL."""
        try:
            if content is None:
                content = await self._fetched(file.url)
            form = aiohttp.FormData()
            form.add_field("image", content, filename=file.name, content_type="application/octet-stream")
            for key, value in (("overwrite", "true"), ("type", file.kind), ("subfolder", file.subfolder)):
                form.add_field(key, value)
            async with self.api.session.post(self.base_url + "/upload/image", data=form) as answer:
                if answer.status != 200:
                    raise ServerAnswer("POST /upload/image", answer.status, await answer.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable(f"bringing {file.name}", error) from error

    async def _fetched(self, url: str) -> bytes:
        async with self.api.session.get(url) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise ServerAnswer(f"GET {url}", answer.status, content.decode("utf-8", "replace"))
            return content

    async def _post(self, path: str, document: dict[str, Any]) -> None:
        try:
            async with self.api.session.post(self.base_url + path, json=document) as answer:
                if answer.status >= 400:
                    raise ServerAnswer(f"POST {path}", answer.status, await answer.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable(f"POST {path}", error) from error


def read_summary(told: dict[str, Any]) -> ServerSummary:
    """The answer of ``GET /caches/summary`` as values."""
    warm = tuple(
        WarmModel(
            ModelFile(one["folder"], one["name"], one["identity"], one["file_bytes"]),
            one["bytes"],
            one["reload_s"],
            one["tier"],
            one["held"],
        )
        for one in told["models"]
    )
    ended = tuple(EndedPrompt(one["prompt_id"], one["status"], one["seconds"], one["read_s"]) for one in told["ended"])
    return ServerSummary(told["boot"], told["version"], warm, tuple(told["running"]), tuple(told["waiting"]), ended, told["cap_bytes"])


def read_files(told: list[dict[str, Any]]) -> tuple[ModelFile, ...]:
    """The files of the model folders as values."""
    return tuple(ModelFile(one["folder"], one["name"], None, one["bytes"]) for one in told)
