"""The thread that takes prompts from the queue and has them executed, one after the other."""

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import hook_breaker_ac10a0
from comfy_execution.prompts.queue import PromptQueue
from comfy_execution.server_protocol import ExecutionServer

log = logging.getLogger(__name__)

COLLECT_INTERVAL_S = 10.0


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
    """Owns the ``prompt-worker`` thread. ``start`` once, ``stop`` once; both from any thread.

    After each prompt it stores the history, tells the owner that nothing runs any more, and applies what ``POST /free`` asked for.
    """

    def __init__(
        self, queue: PromptQueue, server: ExecutionServer, executor: Executor, status_type: Callable[..., Any], upkeep: Upkeep
    ) -> None:
        """*queue* is a ``PromptQueue``, *server* the ``PromptServer``, *status_type* ``PromptQueue.ExecutionStatus``."""
        self._queue = queue
        self._server = server
        self._executor = executor
        self._status_type = status_type
        self._upkeep = upkeep
        self._stopping = threading.Event()
        self._last_collection_s = 0.0
        self._collect_due = False
        self._thread = threading.Thread(target=self._work, name="prompt-worker", daemon=True)

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

    def _work(self) -> None:
        while not self._stopping.is_set():
            taken = self._queue.get(timeout=self._wait_s())
            if taken is not None and not self._stopping.is_set():
                self._execute(*taken)
            self._apply_flags(self._queue.get_flags())
            self._collect_garbage()
            self._upkeep.release_spare()

    def _wait_s(self) -> float:
        return COLLECT_INTERVAL_S if self._collect_due else 1000.0

    def _execute(self, item: tuple[Any, ...], item_id: int) -> None:
        started_s = time.perf_counter()
        prompt_id, prompt, extra_data, outputs = item[1:5]
        sensitive = item[5] if len(item) > 5 else {}
        self._server.last_prompt_id = prompt_id
        try:
            self._executor.execute(prompt, prompt_id, {**extra_data, **sensitive}, outputs)
        except Exception:
            log.exception("Prompt %s could not be executed; the queue goes on", prompt_id)
            self._executor.success = False
        hook_breaker_ac10a0.restore_functions()
        self._collect_due = True
        status = self._status_type(
            status_str="success" if self._executor.success else "error",
            completed=self._executor.success,
            messages=self._executor.status_messages,
        )
        self._queue.task_done(item_id, self._executor.history_result, status=status)
        if self._server.client_id is not None:
            self._server.send_sync("executing", {"node": None, "prompt_id": prompt_id}, self._server.client_id)
        log.info("Prompt executed in %.2f seconds", time.perf_counter() - started_s)

    def _apply_flags(self, flags: dict[str, Any]) -> None:
        free_memory = flags.get("free_memory", False)
        if flags.get("unload_models", free_memory):
            self._upkeep.unload_models()
            self._collect_due = True
        if free_memory:
            self._executor.reset()
            self._executor.clear_models("POST /free")
            self._collect_due = True
            self._last_collection_s = 0.0

    def _collect_garbage(self) -> None:
        if not self._collect_due or time.monotonic() - self._last_collection_s < COLLECT_INTERVAL_S:
            return
        gc.collect()
        self._upkeep.trim()
        self._last_collection_s = time.monotonic()
        self._collect_due = False
