"""Runs a job once, even if it is delivered twice."""

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

NAMESPACE = uuid.UUID("6f1d5a0e-52a7-5b0c-9c5b-3e7f6f0a4b1d")

Result = dict[str, Any]


def job_key(job_id: str, job_input: Any) -> str:
    """The key of a job, from its id and input; two deliveries of one job have the same."""
    text = json.dumps(job_input, sort_keys=True, default=repr)
    return f"{job_id}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def prompt_id_for(key: str, attempt: int = 0) -> str:
    """The prompt id of a job, the same in every process, so that a server can be asked whether it has the job already."""
    return str(uuid.uuid5(NAMESPACE, f"{key}:{attempt}"))


@dataclass(slots=True)
class _Running:
    task: "asyncio.Task[Result]"
    waiting: int = 0


class JobRegistry:
    """The jobs that run now, by key. Lives on one loop."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    async def run(self, key: str, start: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of the job: of the one that runs under *key*, else of ``start()``. Each caller gets a copy of its own.

        A cancelled caller cancels the job when nobody else waits for it, waits until it has cleaned up, and is cancelled.
        """
        running = self._running.get(key)
        if running is not None and running.task.cancelling():
            await asyncio.wait([running.task])
            running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(asyncio.create_task(start(), name=f"job {key}"))
            running.task.add_done_callback(lambda task: self._forget(key, task))
        running.waiting += 1
        try:
            return dict(await asyncio.shield(running.task))
        except asyncio.CancelledError:
            if running.waiting == 1 and not running.task.done():
                running.task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await asyncio.wait([running.task])
            raise
        finally:
            running.waiting -= 1

    def _forget(self, key: str, task: "asyncio.Task[Result]") -> None:
        if key in self._running and self._running[key].task is task:
            del self._running[key]
