"""Sends workflows to the endpoints that a client can use. Standard library only; every call blocks."""

import base64
import binascii
import hashlib
import json
import mimetypes
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

FIRST_POLL_S, LAST_POLL_S = 0.2, 2.0
REQUEST_TIMEOUT_S = 120
EXPIRED_TRIES = 3
RUNPOD_HOST = "api.runpod.ai"
FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

OnProgress = Callable[[dict[str, Any]], None]


class SendError(RuntimeError):
    """The job could not be sent or did not succeed; the message is the endpoint's."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file of the result: its bytes, or a link to them."""

    name: str
    data: bytes | None = None
    url: str | None = None

    def read(self) -> bytes:
        """The bytes, fetched if necessary. Raises ``SendError``."""
        if self.data is not None:
            return self.data
        return fetch(urllib.request.Request(str(self.url)))


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a job. *report*: its cost as the worker reports it, or None."""

    files: tuple[ResultFile, ...] = ()
    texts: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    report: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A job: a workflow in API format and input files by name."""

    workflow: dict[str, Any]
    images: dict[str, bytes] = field(default_factory=dict)

    def as_input(self) -> dict[str, Any]:
        """As RunPod's ``input``."""
        images = [{"name": name, "image": base64.b64encode(data).decode("ascii")} for name, data in self.images.items()]
        return {"workflow": self.workflow, "report": True, **({"images": images} if images else {})}


class Endpoint(Protocol):
    """Runs one job after the other."""

    def run(self, request: Request, timeout_s: float, on_progress: OnProgress) -> Answer:
        """The answer to a job. Raises ``SendError``; a ``KeyboardInterrupt`` cancels the job where the endpoint can."""


def fetch(request: urllib.request.Request, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
    """The body of the answer. Raises ``SendError``."""
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")[:2000]
        raise SendError(f"{request.get_method()} {request.full_url}: status {error.code}: {text}") from None
    except OSError as error:
        raise SendError(f"{request.get_method()} {request.full_url}: {error}") from None


class _JsonClient:
    def __init__(self, base_url: str, api_key: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def call(
        self, method: str, path: str, body: Any = None, timeout_s: float = REQUEST_TIMEOUT_S, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON answer; *path* may be a whole URL. Raises ``SendError``."""
        url = path if "://" in path else self.base_url + path
        data = None if body is None else json.dumps(body).encode()
        more = {"Content-Type": "application/json"} if body is not None else {}
        text = fetch(urllib.request.Request(url, data, {**self.headers, **more, **(headers or {})}, method=method), timeout_s)
        try:
            answer: dict[str, Any] = json.loads(text or b"{}")
        except ValueError:
            raise SendError(f"{method} {url}: the answer is not JSON: {text[:200]!r}") from None
        return answer


class LocalEndpoint:
    """The server that RunPod's SDK brings (``handler.py --rp_serve_api``): one call per job, no progress."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self._client = _JsonClient(base_url, api_key)

    def run(self, request: Request, timeout_s: float, on_progress: OnProgress) -> Answer:
        """The answer to ``/runsync``."""
        return _runpod_answer(self._client.call("POST", "/runsync", {"input": request.as_input()}, timeout_s))


class RunPodEndpoint:
    """An endpoint on RunPod, or the worker's own HTTP service: ``/run``, then ``/status`` until it has ended."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = _JsonClient(base_url, api_key)
        self._clock = clock
        self._sleep = sleep

    def run(self, request: Request, timeout_s: float, on_progress: OnProgress) -> Answer:
        """Send, then ask at growing intervals."""
        ends_s = self._clock() + timeout_s
        job_id = self._client.call("POST", "/run", {"input": request.as_input()})["id"]
        pause_s = FIRST_POLL_S
        try:
            while True:
                status = self._client.call("GET", f"/status/{job_id}")
                if status.get("status") in FINISHED:
                    return _runpod_answer(status)
                if isinstance(status.get("output"), dict):
                    on_progress(status["output"])
                if self._clock() > ends_s:
                    raise TimeoutError
                self._sleep(pause_s)
                pause_s = min(pause_s * 1.3, LAST_POLL_S)
        except (KeyboardInterrupt, TimeoutError) as error:
            self._client.call("POST", f"/cancel/{job_id}", {})
            if isinstance(error, KeyboardInterrupt):
                raise
            raise SendError(f"job {job_id} took longer than {timeout_s:g} s and was cancelled") from None


class ComfyV2Endpoint:
    """Comfy API v2 at ``…/api/v2``."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = _JsonClient(base_url, api_key)
        self._clock = clock
        self._sleep = sleep

    def run(self, request: Request, timeout_s: float, on_progress: OnProgress) -> Answer:
        """Upload the input files as assets, send the workflow, ask until it has ended, fetch its outputs."""
        ends_s = self._clock() + timeout_s
        workflow = self._with_assets(request)
        job = self._client.call("POST", "/jobs", {"workflow": workflow}, headers={"Idempotency-Key": str(uuid.uuid4())})
        path = f"/jobs/{job['id']}"
        lost = 0
        pause_s = FIRST_POLL_S
        try:
            while job.get("status") in ("queued", "running", "canceling"):
                _tell_v2_progress(job, on_progress)
                if self._clock() > ends_s:
                    raise TimeoutError
                self._sleep(pause_s)
                pause_s = min(pause_s * 1.3, LAST_POLL_S)
                job = self._client.call("GET", path)
                # A proxy that asks history and queue one after the other misses a job that ends in between: it is there the next time.
                lost = lost + 1 if job.get("status") == "expired" else 0
                if 0 < lost <= EXPIRED_TRIES:
                    job["status"] = "running"
        except (KeyboardInterrupt, TimeoutError) as error:
            self._client.call("POST", f"{path}/cancel", {})
            if isinstance(error, KeyboardInterrupt):
                raise
            raise SendError(f"job {job['id']} took longer than {timeout_s:g} s and was cancelled") from None
        if job.get("status") != "succeeded":
            raise SendError(_v2_error(job))
        files = tuple(ResultFile(output["name"], data=self._content(output)) for output in job.get("outputs") or ())
        return Answer(files)

    def _with_assets(self, request: Request) -> dict[str, Any]:
        assets = {name: self._upload(name, data) for name, data in request.images.items()}
        if not assets:
            return request.workflow

        def replaced(value: Any) -> Any:
            known = isinstance(value, str) and value in assets
            return {"__type": "core/ASSET", "info": {"id": assets[value]}} if known else value

        return {
            node_id: {**node, "inputs": {name: replaced(value) for name, value in (node.get("inputs") or {}).items()}}
            for node_id, node in request.workflow.items()
        }

    def _upload(self, name: str, data: bytes) -> str:
        boundary = uuid.uuid4().hex
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        # The server keeps assets under their path and replaces none, so the path says what is in the file.
        path = f"input/{hashlib.sha256(data).hexdigest()[:12]}-{urllib.parse.quote(name)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file_path"\r\n\r\n{path}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{urllib.parse.quote(name)}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {**self._client.headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = json.loads(fetch(urllib.request.Request(f"{self._client.base_url}/assets", body, headers, method="POST")))
        return str(answer["id"])

    def _content(self, output: dict[str, Any]) -> bytes:
        url = urllib.parse.urljoin(f"{self._client.base_url}/", output["url"])
        same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self._client.base_url).netloc
        return fetch(urllib.request.Request(url, headers=self._client.headers if same_host else {}))


def endpoint_for(url: str, api_key: str | None, kind: str = "auto") -> Endpoint:
    """The endpoint at *url*; *kind* is ``local``, ``runpod``, ``v2``, or ``auto`` to find out."""
    if kind == "auto":
        kind = _kind_of(url)
    if kind == "v2":
        return ComfyV2Endpoint(url, api_key)
    return RunPodEndpoint(url, api_key) if kind == "runpod" else LocalEndpoint(url, api_key)


def _kind_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.path.rstrip("/").endswith("/api/v2"):
        return "v2"
    if parts.hostname == RUNPOD_HOST:
        return "runpod"
    try:
        health = json.loads(fetch(urllib.request.Request(f"{url.rstrip('/')}/health"), 10))
    except (SendError, ValueError):
        return "local"
    return "runpod" if isinstance(health, dict) and "jobs" in health else "local"


def _runpod_answer(status: dict[str, Any]) -> Answer:
    if status.get("status") != "COMPLETED":
        raise SendError(str(status.get("error") or f"the job ended as {status.get('status')}"))
    output = status.get("output")
    if not isinstance(output, dict):
        raise SendError(f"the job's output is not what this worker makes: {output!r:.200}")
    entries = [entry for name in ("images", "gifs", "videos", "audio", "files") for entry in output.get(name) or ()]
    texts = tuple(str(entry.get("text")) for entry in output.get("text") or () if isinstance(entry, dict))
    return Answer(tuple(_file(entry) for entry in entries), texts, tuple(output.get("errors") or ()), output.get("report"))


def _file(entry: dict[str, Any]) -> ResultFile:
    if entry.get("type") == "s3_url":
        return ResultFile(entry["filename"], url=entry["data"])
    try:
        return ResultFile(entry["filename"], data=base64.b64decode(entry["data"], validate=True))
    except (binascii.Error, KeyError, TypeError) as error:
        raise SendError(f"the file {entry.get('filename')!r} in the answer is damaged: {error}") from None


def _tell_v2_progress(job: dict[str, Any], on_progress: OnProgress) -> None:
    progress = job.get("progress")
    if isinstance(progress, dict) and isinstance(progress.get("value"), int | float):
        on_progress({"percent": 100 * progress["value"], "node": progress.get("current_node")})


def _v2_error(job: dict[str, Any]) -> str:
    error = job.get("error") or {}
    where = f" (node {error['node_id']}, {error.get('class_type')})" if error.get("node_id") else ""
    return f"the job ended as {job.get('status')}: {error.get('code', '')} {error.get('message', '')}{where}".strip()
