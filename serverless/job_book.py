"""Keeps the jobs that came over HTTP: those that wait, run and have ended."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serverless.job_progress import ProgressReport
from serverless.job_registry import job_key

log = logging.getLogger(__name__)

Handle = Callable[[dict[str, Any], ProgressReport], Awaitable[dict[str, Any]]]

FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class BookFull(RuntimeError):
    """The maximum number of jobs is waiting."""


class IdInUse(ValueError):
    """Another job has the id."""


@dataclass(slots=True)
class BookedJob:
    """A job and what is known of it; ``status`` is one of RunPod's words. Times in seconds on the monotonic clock."""

    job_id: str
    key: str
    taken_s: float
    task: "asyncio.Task[None] | None" = None
    status: str = "IN_QUEUE"
    began_s: float | None = None
    ended_s: float | None = None
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    def answer(self) -> dict[str, Any]:
        """The job as RunPod's ``/status`` tells it."""
        told: dict[str, Any] = {"id": self.job_id, "status": self.status}
        if self.began_s is not None:
            told["delayTime"] = round((self.began_s - self.taken_s) * 1000)
        if self.began_s is not None and self.ended_s is not None:
            told["executionTime"] = round((self.ended_s - self.began_s) * 1000)
        if self.status == "IN_PROGRESS" and self.progress is not None:
            told["output"] = self.progress
        elif self.status == "FAILED" and self.result is not None:
            told["error"] = self.result.get("error")
            if self.result.get("details"):
                told["details"] = self.result["details"]
        elif self.result is not None:
            told["output"] = self.result
        return told


class JobBook:
    """Runs at most *concurrency* jobs at a time, in the order they came; keeps the newest *keep* that have ended. Lives on one loop."""

    def __init__(
        self, handle: Handle, concurrency: int = 1, max_waiting: int = 100, keep: int = 100, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._handle = handle
        self._slots = asyncio.Semaphore(concurrency)
        self._max_waiting = max_waiting
        self._keep = keep
        self._clock = clock
        self._jobs: dict[str, BookedJob] = {}

    def take(self, job_input: Any, job_id: str | None = None) -> BookedJob:
        """Begin a job. One with the same id and input is returned as it is. Raises ``BookFull`` and ``IdInUse``."""
        job_id = job_id or str(uuid.uuid4())
        key = job_key(job_id, job_input)
        known = self._jobs.get(job_id)
        if known is not None and known.key != key:
            raise IdInUse(f"job {job_id} was sent with another input")
        if known is not None and known.status not in ("FAILED", "CANCELLED"):
            return known
        if self.waiting >= self._max_waiting:
            raise BookFull(f"{self.waiting} jobs wait already")
        self._forget_oldest()
        job = BookedJob(job_id, key, self._clock())
        self._jobs.pop(job_id, None)
        self._jobs[job_id] = job
        job.task = asyncio.create_task(self._run(job, job_input), name=f"booked job {job_id}")
        return job

    def get(self, job_id: str) -> BookedJob | None:
        """A job by id."""
        return self._jobs.get(job_id)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(job.status == "IN_QUEUE" for job in self._jobs.values())

    @property
    def running(self) -> int:
        """How many jobs run."""
        return sum(job.status == "IN_PROGRESS" for job in self._jobs.values())

    async def cancel(self, job: BookedJob) -> None:
        """Stop a job that waits or runs, and wait until its prompt is stopped."""
        if job.task is not None and not job.task.done():
            job.task.cancel()
            await asyncio.wait([job.task])
        if job.status not in FINISHED:
            # It was cancelled before it could begin.
            job.status, job.ended_s = "CANCELLED", self._clock()

    async def close(self) -> None:
        """Stop every job."""
        for job in list(self._jobs.values()):
            await self.cancel(job)

    async def _run(self, job: BookedJob, job_input: Any) -> None:
        try:
            async with self._slots:
                job.status, job.began_s = "IN_PROGRESS", self._clock()
                job.result = await self._handle({"id": job.job_id, "input": job_input}, lambda progress: setattr(job, "progress", progress))
            job.result.pop("refresh_worker", None)
            job.status = "FAILED" if "error" in job.result else "COMPLETED"
        except asyncio.CancelledError:
            job.status = "CANCELLED"
            raise
        except Exception as error:
            log.exception("job %s failed in a way that is not foreseen", job.job_id)
            job.status, job.result = "FAILED", {"error": f"An unexpected error occurred: {type(error).__name__}: {error}"}
        finally:
            job.ended_s = self._clock()

    def _forget_oldest(self) -> None:
        finished = [job_id for job_id, job in self._jobs.items() if job.status in FINISHED]
        for job_id in finished[: max(len(finished) - self._keep + 1, 0)]:
            del self._jobs[job_id]
