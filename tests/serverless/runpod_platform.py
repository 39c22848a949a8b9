"""The part of RunPod's platform that a worker talks to: it hands out jobs, takes results and progress, and tells which jobs to stop."""

import asyncio
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from typing import Any

from aiohttp import web
from live_server import ROOT


class RunPodPlatform:
    """Runs on a thread of its own; ``environment()`` is what a worker needs to find it. ``close`` ends it."""

    def __init__(self) -> None:
        self.results: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.progress: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._is_up.wait(30)

    def environment(self) -> dict[str, str]:
        """The variables that RunPod sets."""
        base = f"http://127.0.0.1:{self.port}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/pod?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$ID?gpu=none",
            "RUNPOD_POD_ID": "pod",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_DEBUG_LEVEL": "INFO",
        }

    def send(self, job_id: str, job_input: dict[str, Any]) -> None:
        """Queue a job."""
        self._loop.call_soon_threadsafe(self._jobs.put_nowait, {"id": job_id, "input": job_input})

    def stop(self, job_id: str) -> None:
        """Cancel a job, as its caller or its time limit would."""
        self._loop.call_soon_threadsafe(self._stops.put_nowait, job_id)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        self._jobs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stops: asyncio.Queue[str] = asyncio.Queue()
        self._ended = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.add_routes(
            [web.get("/job-take/{pod}", self._take), web.get("/job-stop/{pod}", self._stopped), web.post("/job-done/{id}", self._done)]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._is_up.set()
        await self._ended.wait()
        await runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _take(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.wait_for(self._jobs.get(), 1))
        except TimeoutError:
            return web.Response(status=204)

    async def _stopped(self, request: web.Request) -> web.Response:
        try:
            return web.json_response({"jobsToStop": [await asyncio.wait_for(self._stops.get(), 5)]})
        except TimeoutError:
            return web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        told = json.loads(await request.text())
        (self.progress if told.get("status") == "IN_PROGRESS" else self.results).put((request.match_info["id"], told))
        return web.Response()


def start_on_platform(platform: RunPodPlatform, folder: pathlib.Path, host: str, **environment: str) -> "subprocess.Popen[bytes]":
    """``python handler.py`` as on RunPod; its output goes to ``worker.log`` in *folder*."""
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "serverless" / "handler.py")],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **platform.environment(), "COMFY_HOST": host, "COMFY_PID_FILE": str(folder / "no.pid"), **environment},
        )
