"""The entry point on RunPod: ``python handler.py``, or with ``--rp_serve_api`` a server on this machine that behaves like RunPod's.

A drop-in replacement for the handler of worker-comfyui; docs/howto/runpod-worker.md says how to use it.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

if __package__ in (None, ""):
    # Run as a file: its folder is on the path, the project is not.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from serverless.result_storage import StorageError
from serverless.settings import BadSetting, WorkerSettings
from serverless.worker import Worker, storage_from

log = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def make_handler(worker: Worker, tell: Callable[[dict[str, Any], Any], None] | None) -> Handler:
    """The function that RunPod's SDK calls for each job. *tell(job, progress)* passes progress on; None where nobody receives it."""

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        """Run one job."""
        report = (lambda progress: None) if tell is None else (lambda progress: tell(job, progress))
        return await worker.handle(job, report)

    return handler


def start_log(level: str = "INFO") -> None:
    """Log to the standard error stream; the SDK has configured the root log differently before."""
    package = logging.getLogger().getChild("serverless")
    package.setLevel(level)
    stream = logging.StreamHandler()
    stream.setFormatter(logging.Formatter("%(asctime)s worker %(levelname)s %(message)s"))
    package.handlers = [stream]
    package.propagate = False


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Look at the server, then take jobs until the process is told to end."""
    import runpod

    start_log(environment.get("WORKER_LOG_LEVEL", "INFO"))
    try:
        settings = WorkerSettings.from_environment(environment)
        storage_from(settings)
    except (BadSetting, StorageError) as error:
        sys.exit(f"the worker cannot start: {error}")
    # Elsewhere nobody takes progress, and the SDK would log an error for each report.
    is_on_platform = bool(environment.get("RUNPOD_WEBHOOK_POST_OUTPUT"))
    tell = runpod.serverless.progress_update if is_on_platform else None
    asyncio.run(_look_at_server(settings))
    worker = Worker(settings)
    runpod.serverless.start({"handler": make_handler(worker, tell), "refresh_worker": settings.refresh_worker})


async def _look_at_server(settings: WorkerSettings) -> None:
    """Log what the server keeps warm if it is up by now; the first job waits for it otherwise."""
    worker = Worker(settings)
    try:
        await worker.configure()
    finally:
        await worker.close()


if __name__ == "__main__":
    main()
