"""Runs one prompt on the server: queued once, waited for, and stopped when its job is."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from serverless.job_errors import PROCESSING_FAILED, JobFailed, names_a_checkpoint, refusal
from serverless.job_registry import prompt_id_for
from serverless.prompt_end import PromptEnd, PromptWait
from serverless.server_api import ServerAnswer, ServerUnreachable
from serverless.server_events import Event
from serverless.server_link import ServerLink
from serverless.workflow_normalization import NormalizedWorkflow

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 20
STOP_PATIENCE_S = 10.0


class PromptRun:
    """Used once. ``stop`` may be called at any moment after ``run`` began, also while it is being cancelled."""

    def __init__(
        self,
        link: ServerLink,
        key: str,
        on_event: Callable[[Event], None],
        names: NormalizedWorkflow,
        connect: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*key* stands for the job (see ``job_key``); *connect* makes sure that the server can be reached."""
        self._link = link
        self._key = key
        self._on_event = on_event
        self._names = names
        self._connect = connect
        self._clock = clock
        self._submission: asyncio.Task[str] | None = None
        self.prompt_id = ""
        self.queued_s = 0.0

    async def run(self, extra_data: dict[str, Any]) -> PromptEnd:
        """Queue the workflow, unless an earlier delivery of the job did, and wait for its end.

        Raises ``JobFailed`` (it was refused), ``PromptLost``, ``ServerUnreachable`` and ``ServerAnswer``.
        """
        self.prompt_id, is_known = await self._choose_id()
        with self._link.events.listen(self.prompt_id) as events:
            answered_id = self.prompt_id
            if is_known:
                log.info("prompt %s is on the server already, from an earlier delivery of its job", self.prompt_id)
            else:
                self._submission = asyncio.create_task(self._submit(extra_data), name=f"submit {self.prompt_id}")
                answered_id = await asyncio.shield(self._submission)
            self.queued_s = self._clock()
            if answered_id == self.prompt_id:
                return await self._wait(events).end(ask_now=is_known)
        # A server that chooses ids itself: what it said before this moment was not heard, so it is asked.
        self.prompt_id = answered_id
        with self._link.events.listen(answered_id) as events:
            return await self._wait(events).end(ask_now=True)

    async def stop(self) -> None:
        """Withdraw this prompt alone, whether it waits or runs; nothing happens if the server cannot be reached."""
        if self._submission is not None:
            # Until its answer is there the prompt may still be on its way into the queue.
            await asyncio.wait([self._submission], timeout=STOP_PATIENCE_S)
            if self._submission.done() and not self._submission.cancelled() and self._submission.exception() is None:
                self.prompt_id = self._submission.result()
        if not self.prompt_id:
            return
        try:
            await self._link.api.unqueue(self.prompt_id)
            # Servers of before 2025 interrupt whatever runs, so they are only asked when it is this prompt.
            if await self._link.api.is_running(self.prompt_id):
                await self._link.api.interrupt(self.prompt_id)
        except (ServerUnreachable, ServerAnswer) as error:
            log.warning("prompt %s could not be stopped: %s", self.prompt_id, error)

    def _wait(self, events: "asyncio.Queue[Event]") -> PromptWait:
        return PromptWait(self._link.api, self.prompt_id, events, self._link.patience(), self._on_event, self._clock)

    async def _choose_id(self) -> tuple[str, bool]:
        """The id for this delivery, and whether the server has that prompt. A prompt that failed before does not count."""
        for attempt in range(MAX_ATTEMPTS):
            prompt_id = prompt_id_for(self._key, attempt)
            entry = await self._link.api.history_entry(prompt_id)
            if entry is None:
                return prompt_id, await self._link.api.is_queued(prompt_id)
            if (entry.get("status") or {}).get("status_str") == "success":
                return prompt_id, True
        raise JobFailed(f"{PROCESSING_FAILED}: it was tried {MAX_ATTEMPTS} times and failed each time")

    async def _submit(self, extra_data: dict[str, Any]) -> str:
        """Queue the prompt and return its id. If the answer is lost, the server is asked whether it has the prompt."""
        body: dict[str, Any] = {"prompt": self._names.workflow, "client_id": self._link.settings.client_id, "prompt_id": self.prompt_id}
        if extra_data:
            body["extra_data"] = extra_data
        try:
            try:
                answer = await self._link.api.submit(body)
            except ServerUnreachable as error:
                log.warning("queueing prompt %s: %s", self.prompt_id, error)
                await self._connect()
                if await self._link.api.history_entry(self.prompt_id) is not None or await self._link.api.is_queued(self.prompt_id):
                    return self.prompt_id
                answer = await self._link.api.submit(body)
        except ServerAnswer as error:
            if error.status != 400:
                raise
            raise await self._refusal(error.text) from None
        if not answer.get("prompt_id"):
            raise JobFailed(f"Missing 'prompt_id' in queue response: {json.dumps(answer)[:500]}")
        return str(answer["prompt_id"])

    async def _refusal(self, text: str) -> JobFailed:
        checkpoints = None
        if names_a_checkpoint(text.lower()):
            try:
                info = await self._link.api.object_info("CheckpointLoaderSimple")
                choices = info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
                checkpoints = choices[0] if isinstance(choices[0], list) else list(choices[1].get("options", ()))
            except (ServerUnreachable, ServerAnswer, LookupError, TypeError, AttributeError) as error:
                log.debug("the checkpoints cannot be listed: %s", error)
        return refusal(text, self._names, checkpoints)
