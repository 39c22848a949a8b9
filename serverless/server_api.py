"""Calls the HTTP routes of the server that a worker uses. All of them are ComfyUI's own, except ``/caches``."""

import json
from types import TracebackType
from typing import Any

import aiohttp

SHORT_TIMEOUT_S = 30.0
VIEW_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0


class ServerUnreachable(ConnectionError):
    """The server did not answer.

    ``is_refused``: nobody listens at its address, so its process is not there (or not yet). ``is_busy``: it took the connection, but was
    silent for too long.
    """

    def __init__(self, request: str, error: BaseException) -> None:
        super().__init__(f"{request}: {type(error).__name__}: {error}".rstrip(": "))
        causes = getattr(error, "os_error", None), error.__cause__, error
        self.is_refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        self.is_busy = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)


class ServerAnswer(RuntimeError):
    """The server answered with an error; ``status`` and ``text`` are those of the answer."""

    def __init__(self, request: str, status: int, text: str) -> None:
        super().__init__(f"{request} was answered with status {status}: {text[:2000]}")
        self.status = status
        self.text = text


class ServerApi:
    """One connection pool, made at the first request on the loop that makes it. ``close`` it on the same loop."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ServerApi":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool; call it on the loop that uses it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=SHORT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S), trust_env=False
            )
        return self._session

    async def close(self) -> None:
        """End the pool; the next request makes a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def upload(self, name: str, data: bytes) -> None:
        """Put an input file where ``LoadImage`` finds it, replacing one of the same name."""
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="image/png")
        form.add_field("overwrite", "true")
        await self._request("POST", "/upload/image", data=form)

    async def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Queue a prompt: the server's answer. A refusal is a ``ServerAnswer`` with status 400."""
        answer: dict[str, Any] = json.loads(await self._request("POST", "/prompt", json=body))
        return answer

    async def history_entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry of a prompt that has ended, None while it has not or when it is unknown."""
        entries = json.loads(await self._request("GET", f"/history/{prompt_id}"))
        entry = entries.get(prompt_id) if isinstance(entries, dict) else None
        return entry if isinstance(entry, dict) else None

    async def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt waits or runs."""
        queue = json.loads(await self._request("GET", "/queue"))
        return any(row[1] == prompt_id for row in (*queue.get("queue_running", ()), *queue.get("queue_pending", ())))

    async def is_running(self, prompt_id: str) -> bool:
        """Whether a prompt runs at this moment."""
        queue = json.loads(await self._request("GET", "/queue"))
        return any(row[1] == prompt_id for row in queue.get("queue_running", ()))

    async def unqueue(self, prompt_id: str) -> None:
        """Withdraw a waiting prompt."""
        await self._request("POST", "/queue", json={"delete": [prompt_id]})

    async def interrupt(self, prompt_id: str) -> None:
        """Stop a prompt if it is the one that runs."""
        await self._request("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def view(self, filename: str, subfolder: str, kind: str) -> bytes:
        """The bytes of a result."""
        return await self._request(
            "GET",
            "/view",
            params={"filename": filename, "subfolder": subfolder, "type": kind},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=VIEW_TIMEOUT_S),
        )

    async def object_info(self, class_type: str | None = None) -> dict[str, Any]:
        """What the server tells of all node classes, or of one."""
        info: dict[str, Any] = json.loads(await self._request("GET", "/object_info" + (f"/{class_type}" if class_type else "")))
        return info

    async def get_json(self, path: str) -> Any:
        """The JSON answer of any other route."""
        return json.loads(await self._request("GET", path))

    async def post(self, path: str, document: Any) -> bytes:
        """The body of the answer of any other route to a POST of JSON."""
        return await self._request("POST", path, json=document)

    async def post_form(self, path: str, form: aiohttp.FormData) -> bytes:
        """The same for a form."""
        return await self._request("POST", path, data=form)

    async def _request(self, method: str, path: str, **more: Any) -> bytes:
        """The body of the answer. Raises ``ServerUnreachable`` and, for a status of 400 and over, ``ServerAnswer``."""
        try:
            async with self.session.request(method, self.base_url + path, **more) as answer:
                body = await answer.read()
                if answer.status >= 400:
                    raise ServerAnswer(f"{method} {path}", answer.status, body.decode("utf-8", "replace"))
                return body
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable(f"{method} {path}", error) from error
