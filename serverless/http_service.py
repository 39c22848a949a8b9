"""Serves the worker over plain HTTP, with RunPod's routes, for Docker, Modal and Kubernetes: ``python -m serverless.http_service``."""

import argparse
import asyncio
import hmac
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from serverless.handler import start_log
from serverless.job_book import FINISHED, BookedJob, BookFull, IdInUse, JobBook
from serverless.result_storage import StorageError
from serverless.settings import BadSetting, WorkerSettings
from serverless.worker import Worker, storage_from

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 << 20
RETRY_AFTER_S = 5
WORKER = web.AppKey("worker", Worker)
BOOK = web.AppKey("book", JobBook)

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpService:
    """``POST /run`` and ``/runsync``, ``GET`` or ``POST /status/{id}``, ``POST /cancel/{id}``, ``GET /health``."""

    def __init__(
        self,
        worker: Worker,
        concurrency: int = 1,
        max_waiting: int = 100,
        token: str | None = None,
        on_refresh: Callable[[], None] = lambda: None,
    ) -> None:
        """*token*: what clients must send as ``Authorization: Bearer …``.

        *on_refresh* is called once the answer to a job is fetched, if the worker is to be refreshed after a job.
        """
        self._worker = worker
        self._concurrency = concurrency
        self._max_waiting = max_waiting
        self._token = token
        self._on_refresh = on_refresh
        self._is_refresh_due = False
        self._looking: asyncio.Task[Any] | None = None

    def make_app(self) -> web.Application:
        """The application; the worker is connected when it starts and closed when it ends."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._authorize])
        app[WORKER] = self._worker
        app.add_routes(
            [
                web.post("/run", self._run),
                web.post("/runsync", self._runsync),
                web.get("/status/{id}", self._status),
                web.post("/status/{id}", self._status),
                web.post("/cancel/{id}", self._cancel),
                web.get("/health", self._health),
            ]
        )
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        book = app[BOOK] = JobBook(self._handle, self._concurrency, self._max_waiting)
        self._look()
        yield
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await book.close()
        await self._worker.close()

    def _look(self) -> None:
        """Connect to the server in the background, unless it is connecting already."""
        if not self._worker.is_connected and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._worker.configure())

    async def _handle(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        result = await self._worker.handle(job, report)
        self._is_refresh_due = self._is_refresh_due or bool(result.get("refresh_worker"))
        return result

    def _answer(self, job: BookedJob) -> web.Response:
        if self._is_refresh_due and job.status in FINISHED:
            # The server lets this answer go out before it ends.
            self._on_refresh()
        return web.json_response(job.answer())

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Next) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if self._token and request.path != "/health" and not hmac.compare_digest(given, self._token.encode()):
            return web.json_response({"error": "the request needs the header 'Authorization: Bearer TOKEN'"}, status=401)
        return await handler(request)

    async def _run(self, request: web.Request) -> web.Response:
        return web.json_response(_brief(await self._take(request)))

    async def _runsync(self, request: web.Request) -> web.Response:
        job = await self._take(request)
        assert job.task is not None
        await asyncio.wait([job.task])
        return self._answer(job)

    async def _take(self, request: web.Request) -> BookedJob:
        try:
            body = await request.json()
        except ValueError:
            raise _refuse(web.HTTPBadRequest, "the body is not JSON") from None
        if not isinstance(body, dict) or "input" not in body:
            raise _refuse(web.HTTPUnprocessableEntity, "the body must be an object with 'input'")
        job_id = body.get("id")
        if job_id is not None and not isinstance(job_id, str):
            raise _refuse(web.HTTPUnprocessableEntity, "'id' must be text")
        try:
            return request.app[BOOK].take(body["input"], job_id)
        except IdInUse as error:
            raise _refuse(web.HTTPConflict, str(error)) from None
        except BookFull as error:
            raise _refuse(web.HTTPTooManyRequests, str(error), {"Retry-After": str(RETRY_AFTER_S)}) from None

    async def _status(self, request: web.Request) -> web.Response:
        return self._answer(self._job(request))

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        await request.app[BOOK].cancel(job)
        return web.json_response(_brief(job))

    async def _health(self, request: web.Request) -> web.Response:
        book = request.app[BOOK]
        self._look()
        return web.json_response(
            {
                "service": "keepwarm-worker",
                "server_connected": self._worker.is_connected,
                "jobs": {"inQueue": book.waiting, "inProgress": book.running},
            }
        )

    def _job(self, request: web.Request) -> BookedJob:
        job = request.app[BOOK].get(request.match_info["id"])
        if job is None:
            raise _refuse(web.HTTPNotFound, "no such job, or it ended long ago")
        return job


def _brief(job: BookedJob) -> dict[str, Any]:
    return {"id": job.job_id, "status": job.status}


def _refuse(kind: type[web.HTTPException], text: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    return kind(text=web.json_response({"error": text}).text, content_type="application/json", headers=headers)


def main(arguments: list[str] | None = None) -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(prog="serverless.http_service", description="Takes jobs over HTTP and runs them on a ComfyUI server.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="the port (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs given to the server at a time (default: %(default)s)")
    parser.add_argument("--max-waiting", type=int, default=100, help="jobs that may wait; more are refused with status 429")
    given = parser.parse_args(arguments)
    start_log(os.environ.get("WORKER_LOG_LEVEL", "INFO"))
    try:
        settings = WorkerSettings.from_environment(os.environ)
        storage_from(settings)
    except (BadSetting, StorageError) as error:
        sys.exit(f"the worker cannot start: {error}")
    stopping = asyncio.Event()
    service = HttpService(Worker(settings), given.concurrency, given.max_waiting, os.environ.get("WORKER_API_TOKEN"), stopping.set)
    asyncio.run(_serve(service, given.host, given.port, stopping))


async def _serve(service: HttpService, host: str, port: int, stopping: asyncio.Event) -> None:
    """Until *stopping* (a refresh) or a signal. A refresh ends the process after its answer went out; the platform starts a new one."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    runner = web.AppRunner(service.make_app(), access_log=None, shutdown_timeout=10)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("taking jobs at http://%s:%d", host, port)
        await stopping.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
