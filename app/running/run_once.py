"""``--run WORKFLOW``: execute one workflow without serving, and say where the results are and what each part cost."""

import asyncio
import copy
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import execution
import folder_paths
from app.packs.node_info import registered_node_info
from app.workflow_conversion import WorkflowFormatError, to_prompt
from comfy_execution.prompts.queue import PromptQueue

COST_ROWS = 12


class RunError(Exception):
    """The workflow could not be run; the message is for the person at the terminal."""


class OneRunServer(Protocol):
    """What running one workflow needs of the ``PromptServer``; ``send_sync`` is replaced, as there is no client."""

    prompt_queue: PromptQueue
    send_sync: Callable[..., None]


class ConsoleOwner:
    """Takes the messages that a page would get and shows them as progress bars; knows when the run has ended.

    ``send_sync`` is called from the execution threads; the rest from the main thread.
    """

    def __init__(self, progress: Progress, titles: dict[str, str]) -> None:
        self._progress = progress
        self._titles = titles
        self._nodes = progress.add_task("nodes", total=len(titles))
        self._steps = progress.add_task("", total=None, visible=False)
        self._running: tuple[str, float] | None = None
        self._ended = threading.Event()
        self.costs_s: dict[str, float] = {}
        self.error: dict[str, Any] | None = None
        self.cached = 0

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Receive one message as ``PromptServer.send_sync`` would."""
        if event == "executing":
            self._step_to(data["node"])
        elif event == "progress":
            self._progress.update(self._steps, total=data["max"], completed=data["value"], visible=True)
        elif event == "execution_cached":
            self.cached = len(data["nodes"])
            self._progress.advance(self._nodes, self.cached)
        elif event in ("execution_error", "execution_interrupted"):
            self.error = {"type": event, **data}

    def wait(self) -> None:
        """Block until the run has ended; ``KeyboardInterrupt`` passes through."""
        while not self._ended.wait(0.2):
            pass

    def _step_to(self, node_id: str | None) -> None:
        now_s = time.perf_counter()
        if self._running is not None:
            before, since_s = self._running
            if before != node_id:
                self._progress.advance(self._nodes)
            self.costs_s[before] = self.costs_s.get(before, 0.0) + now_s - since_s
        if node_id is None:
            self._ended.set()
            return
        self._running = (node_id, now_s)
        self._progress.update(self._steps, description=self._titles.get(node_id, node_id), total=None, completed=0, visible=True)


def run_workflow(path: str, repeat: int, start: Callable[[], tuple[asyncio.AbstractEventLoop, Any, Any]]) -> int:
    """Run the workflow file *path* *repeat* times on objects that *start* builds; returns 0, or 1 after printing the error."""
    console = Console()
    try:
        document = _read(path)
        loop, server, _ = start()
        prompt = to_prompt(document, registered_node_info)
        for round_number in range(max(1, repeat)):
            _run(console, loop, server, copy.deepcopy(prompt), f"{round_number + 1}/{repeat}" if repeat > 1 else "")
    except (RunError, WorkflowFormatError) as error:
        console.print(f"[red]{path}:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    return 0


def _read(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise RunError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"is not JSON: {error}") from error


def _run(console: Console, loop: asyncio.AbstractEventLoop, server: OneRunServer, prompt: dict[str, Any], label: str) -> None:
    prompt_id = str(uuid.uuid4())
    valid, error, outputs, node_errors = loop.run_until_complete(execution.validate_prompt(prompt_id, prompt, None))
    if not valid:
        raise RunError(_refusal(error, node_errors))
    titles = {node_id: f"{node['class_type']} #{node_id}" for node_id, node in prompt.items()}
    started_s = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        owner = ConsoleOwner(progress, titles)
        server.send_sync = owner.send_sync
        try:
            server.prompt_queue.put((0, prompt_id, prompt, {"client_id": "run", "create_time": int(time.time() * 1000)}, outputs, {}))
            owner.wait()
        except KeyboardInterrupt:
            if not _stop(server.prompt_queue, prompt_id):
                raise RunError("interrupted") from None
            owner.wait()
    if owner.error is not None:
        raise RunError(_failure(owner.error))
    history = server.prompt_queue.get_history(prompt_id=prompt_id)[prompt_id]
    _report(console, owner, history["outputs"], titles, time.perf_counter() - started_s, label)


def _stop(queue: PromptQueue, prompt_id: str) -> bool:
    """Take the prompt out of *queue*, or ask it to stop if it runs; whether it has begun, so that its end will be told."""
    with queue.mutex:
        if queue.delete_queue_item(lambda row: row[1] == prompt_id):
            return False
        return queue.interrupt_if_running(prompt_id) or queue.is_running(prompt_id) or prompt_id in queue.history


def _refusal(error: dict[str, Any], node_errors: dict[str, Any]) -> str:
    lines = [f"{error['message']} {error.get('details', '')}".strip()]
    for node_id, found in node_errors.items():
        lines += [f"  node {node_id} ({found['class_type']}): {one['message']}: {one['details']}" for one in found["errors"]]
    return "\n".join(lines)


def _failure(error: dict[str, Any]) -> str:
    if error["type"] == "execution_interrupted":
        return "interrupted"
    trace = "".join(error.get("traceback", ()))
    return f"node {error['node_id']} ({error['node_type']}): {error['exception_type']}: {error['exception_message'].strip()}\n{trace}"


def _report(console: Console, owner: ConsoleOwner, outputs: dict[str, Any], titles: dict[str, str], total_s: float, label: str) -> None:
    table = Table("node", "seconds", title=f"run {label}".strip(), title_justify="left")
    for node_id, cost_s in sorted(owner.costs_s.items(), key=lambda item: -item[1])[:COST_ROWS]:
        table.add_row(titles.get(node_id, node_id), f"{cost_s:.2f}")
    table.add_row("all", f"{total_s:.2f}")
    console.print(table)
    if owner.cached:
        console.print(f"{owner.cached} nodes were answered from the cache")
    for node_id, result in outputs.items():
        for line in _results(result):
            console.print(f"{titles.get(node_id, node_id)}: {line}", highlight=False, soft_wrap=True)


def _results(result: dict[str, Any]) -> list[str]:
    lines = []
    for values in result.values():
        for value in values if isinstance(values, list | tuple) else ():
            if isinstance(value, dict) and "filename" in value:
                root = folder_paths.get_directory_by_type(value.get("type", "output")) or ""
                lines.append(os.path.join(root, value.get("subfolder", ""), value["filename"]))
            elif isinstance(value, str):
                lines.append(value)
    return lines
