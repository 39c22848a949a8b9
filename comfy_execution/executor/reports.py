"""What is told of prompts while they run and when they have ended: messages to clients, and what the history keeps."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfy_execution.executor.errors import full_type_name
from comfy_execution.executor.results import printable
from comfy_execution.server_protocol import ExecutionServer


class PromptReports:
    """The reporting part of ``execution.PromptExecutor``, for the prompt that runs or ran last. *is_interrupt* knows the user's stops."""

    def __init__(self, server: ExecutionServer, is_interrupt: Callable[[BaseException], bool]) -> None:
        self.server = server
        self._is_interrupt = is_interrupt
        self.forget_reports()

    def forget_reports(self, success: bool = True) -> None:
        """Begin anew, without messages and outputs; until more is known, the prompt counts as *success*."""
        self.status_messages: list[tuple[str, dict]] = []
        self.history_result: dict[str, Any] = {"outputs": {}, "meta": {}}
        self.success = success

    def keep_outputs(self, ui_outputs: Mapping[str, Mapping[str, Any]]) -> None:
        """Note for the history what nodes gave to show: ``output`` and ``meta`` by node id."""
        self.history_result = {
            "outputs": {node_id: record["output"] for node_id, record in ui_outputs.items()},
            "meta": {node_id: record["meta"] for node_id, record in ui_outputs.items()},
        }

    def add_message(self, event: str, data: dict, broadcast: bool) -> None:
        """Note a message for the history, with the time in ms, and send it to the prompt's owner (or to all)."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.status_messages.append((event, data))
        if self.server.client_id is not None or broadcast:
            self.server.send_sync(event, data, self.server.client_id)

    def handle_execution_error(
        self, prompt_id: str, prompt: Mapping, current_outputs: Iterable[str], executed: set[str], error: dict, ex: BaseException
    ) -> None:
        """Report what ended a prompt: an interrupt to all, an error to the owner."""
        node_id = error["node_id"]
        about = {
            "prompt_id": prompt_id,
            "node_id": node_id,
            "node_type": prompt.get(node_id, {}).get("class_type", ""),
            "executed": list(executed),
        }
        if self._is_interrupt(ex):
            self.add_message("execution_interrupted", about, broadcast=True)
        else:
            self.add_message(
                "execution_error",
                {
                    **about,
                    "exception_message": error.get("exception_message", printable(ex)),
                    "exception_type": error.get("exception_type", full_type_name(type(ex))),
                    "traceback": error.get("traceback", []),
                    "current_inputs": error.get("current_inputs", {}),
                    "current_outputs": list(current_outputs),
                },
                broadcast=False,
            )
