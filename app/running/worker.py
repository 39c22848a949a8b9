"""The thread that takes prompts from the queue and has them executed, one after the other."""

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import hook_breaker_ac10a0
from comfy_execution.executor.errors import error_details
from comfy_execution.executor.isolation import Isolation
from comfy_execution.prompts.queue import PromptQueue
from comfy_execution.server_protocol import ExecutionServer

log = logging.getLogger(__name__)

COLLECT_INTERVAL_S = 10.0
# Between two tries of what fails at once and would fail again.
PAUSE_S = 0.5
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Executor(Protocol):
    """What the worker needs of ``execution.PromptExecutor``."""

    success: bool
    history_result: dict[str, Any]
    status_messages: list[Any]

    def execute(self, prompt: dict[str, Any], prompt_id: str, extra_data: dict[str, Any], execute_outputs: list[str]) -> None:
        """Run one prompt to its end; blocks."""

    def reset(self) -> None:
        """Forget all cached results."""

    def clear_models(self, why: str) -> None:
        """Let the models go that are kept in RAM."""


class Upkeep(Protocol):
    """What the worker has done to models between prompts. Called from its thread; may block."""

    def unload_models(self) -> None:
        """Move every model off every device."""

    def trim(self) -> None:
        """Give back what the devices' allocators hold and no model uses."""

    def release_spare(self) -> None:
        """Give back the memory of dropped weights that no load has taken over."""


class PromptWorker:
    """Owns the ``prompt-worker`` thread and one that watches it. ``start`` once, ``stop`` once; both from any thread.

    After each prompt it stores the history, tells the owner that nothing runs any more, and applies what ``POST /free`` asked for
    and what the queue was given to be called.
    Packs may replace all that it calls, so each step is isolated: whatever is raised there, the next prompt is taken. Should the thread
    be ended from outside, it is started again at once, and the prompt that it ran ends as an error.
    """

    def __init__(
        self,
        queue: PromptQueue,
        server: ExecutionServer,
        executor: Executor,
        status_type: Callable[..., Any],
        upkeep: Upkeep,
        note_start: Callable[[str], None] = lambda prompt_id: None,
    ) -> None:
        """*queue* is a ``PromptQueue``, *server* the ``PromptServer``, *status_type* ``PromptQueue.ExecutionStatus``.

        *note_start* is told each prompt's id just before it runs; a prompt for which it raises fails without having run.
        """
        self._note_start = note_start
        self._queue = queue
        self._server = server
        self._executor = executor
        self._status_type = status_type
        self._upkeep = upkeep
        self._stopping = threading.Event()
        self._last_collection_s = 0.0
        self._collect_due = False
        self._thread = threading.Thread(target=self._keep_working, name="prompt-worker-watch", daemon=True)

    def start(self) -> None:
        """Begin taking prompts."""
        self._thread.start()

    def stop(self, interrupt: Callable[[], None] = lambda: None, timeout_s: float = 5.0) -> None:
        """Take no further prompt, have *interrupt* end the one that runs, and wait up to *timeout_s* for that."""
        self._stopping.set()
        with self._queue.not_empty:
            self._queue.not_empty.notify_all()
        interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _keep_working(self) -> None:
        while not self._stopping.is_set():
            with Isolation("Watching the thread prompt-worker", log):
                worker = threading.Thread(target=self._work, name="prompt-worker", daemon=True)
                worker.start()
                worker.join()
                if not self._stopping.is_set():
                    log.error("The thread prompt-worker is gone; it is started again, and the prompt that it ran has failed")
                    self._end_lost_prompts()
                    self._stopping.wait(PAUSE_S)

    def _end_lost_prompts(self) -> None:
        lost = RuntimeError("the thread that runs prompts was ended from outside; it has been started again")
        for item_id, item in list(self._queue.currently_running.items()):
            self._finish(item, item_id, lost)

    def _work(self) -> None:
        while not self._stopping.is_set():
            taken = None
            with Isolation("Taking a prompt from the queue", log) as attempt:
                taken = self._queue.get(timeout=self._wait_s())
            if attempt.error is not None:
                self._stopping.wait(PAUSE_S)
            if taken is not None and not self._stopping.is_set():
                self._execute(*taken)
            with Isolation("Freeing memory between prompts", log):
                self._apply_flags(self._queue.get_flags())
            self._collect_garbage()
            with Isolation("Giving back the memory of dropped weights", log):
                self._upkeep.release_spare()

    def _wait_s(self) -> float:
        return COLLECT_INTERVAL_S if self._collect_due else 1000.0

    def _execute(self, item: tuple[Any, ...], item_id: int) -> None:
        started_s = time.perf_counter()
        with Isolation("Executing a prompt", log) as attempt:
            prompt_id, prompt, extra_data, outputs = item[1:5]
            sensitive = item[5] if len(item) > 5 else {}
            self._server.last_prompt_id = prompt_id
            self._note_start(prompt_id)
            self._executor.execute(prompt, prompt_id, {**extra_data, **sensitive}, outputs)
        with Isolation("Putting back the functions that packs must not replace", log):
            hook_breaker_ac10a0.restore_functions()
        self._collect_due = True
        self._finish(item, item_id, attempt.error)
        log.info("Prompt executed in %.2f seconds", time.perf_counter() - started_s)

    def _finish(self, item: tuple[Any, ...], item_id: int, error: BaseException | None) -> None:
        """Move the prompt into the history and tell its owner; with *error* as one that failed, whatever the executor says of it."""
        with Isolation("Noting the end of a prompt", log):
            if error is None:
                success, result, messages = self._executor.success, self._executor.history_result, self._executor.status_messages
            else:
                success, result, messages = False, _nothing(), self._messages_of_failed(item, error)
            status = self._status_type(status_str="success" if success else "error", completed=success, messages=messages)
            self._queue.task_done(item_id, result, status=status)
        if item_id in self._queue.currently_running:
            with Isolation("Noting the end of a prompt without its results", log):
                # Not by way of the queue's own class, which a pack may have changed.
                PromptQueue.task_done(self._queue, item_id, _nothing(), None)
        with Isolation("Telling the owner of a prompt that it has ended", log):
            if self._server.client_id is not None:
                self._server.send_sync("executing", {"node": None, "prompt_id": item[1]}, self._server.client_id)

    def _messages_of_failed(self, item: tuple[Any, ...], error: BaseException) -> list[Any]:
        """What was said about a prompt whose execution itself failed; says now how it ended, if nobody has."""
        prompt_id, client_id = item[1], item[3].get("client_id")
        self._server.client_id = client_id
        messages = [(event, data) for event, data in self._executor.status_messages if data.get("prompt_id") == prompt_id]
        if not any(event in _ENDS for event, _ in messages):
            told = {"node_type": "", "executed": [], "current_outputs": [], "timestamp": int(time.time() * 1000)}
            messages.append(("execution_error", {"prompt_id": prompt_id, **error_details("", error, "", None), **told}))
            if client_id is not None:
                with Isolation("Telling the owner of a prompt that it has failed", log):
                    self._server.send_sync(*messages[-1], client_id)
        return messages

    def _apply_flags(self, flags: dict[str, Any]) -> None:
        free_memory = flags.get("free_memory", False)
        if flags.get("unload_models", free_memory):
            self._collect_due = True
            with Isolation("Unloading models", log):
                self._upkeep.unload_models()
        if free_memory:
            self._collect_due = True
            self._last_collection_s = 0.0
            with Isolation("Forgetting results", log):
                self._executor.reset()
            self._executor.clear_models("POST /free")
        for call in flags.get("calls", ()):
            with Isolation("What was to be done between two prompts", log):
                call()

    def _collect_garbage(self) -> None:
        if not self._collect_due or time.monotonic() - self._last_collection_s < COLLECT_INTERVAL_S:
            return
        self._last_collection_s = time.monotonic()
        self._collect_due = False
        gc.collect()
        with Isolation("Giving back memory between prompts", log):
            self._upkeep.trim()


def _nothing() -> dict[str, Any]:
    return {"outputs": {}, "meta": {}}
