"""``--warmup-prompt FILE``: one prompt that runs while the server starts; what it makes is thrown away."""

import asyncio
import copy
import importlib
import json
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.05
SINK = "PreviewAny"


class WarmupFailed(Exception):
    """The prompt cannot be run, or failed; the text names the file and says why."""


async def warm_up(path: str, queue: Any) -> float:
    """Run the prompt in *path* through *queue*, the server's prompt queue; returns the seconds. Raises :class:`WarmupFailed`.

    Nodes that only take (they save, show, send) do not run; what they would have been given is computed. Nothing of it stays in the
    history. Cancelling it interrupts the prompt.
    """
    started_s = time.perf_counter()
    prompt_id = str(uuid.uuid4())
    prompt = read_prompt(path)
    execution = importlib.import_module("execution")
    try:
        valid, error, outputs, node_errors = await execution.validate_prompt(prompt_id, prompt, None)
    except Exception as problem:
        raise WarmupFailed(f"{path} cannot be checked: {type(problem).__name__}: {problem}") from problem
    if not valid:
        raise WarmupFailed(f"{path} is refused: {error['message']} {error.get('details', '')} {_reasons(node_errors)}".strip())
    prompt, outputs = without_takers(prompt, outputs)
    queue.put((0, prompt_id, prompt, {"create_time": int(time.time() * 1000)}, outputs, {}))
    try:
        while (ended := queue.get_history(prompt_id=prompt_id)) == {}:
            await asyncio.sleep(LOOK_AGAIN_S)
    except asyncio.CancelledError:
        if not queue.delete_queue_item(lambda item: item[1] == prompt_id):
            importlib.import_module("nodes").interrupt_processing()
        raise
    queue.delete_history_item(prompt_id)
    status = ended[prompt_id].get("status") or {}
    if status.get("status_str") != "success":
        raise WarmupFailed(f"{path} failed: {_failure(status.get('messages', ()))}")
    return time.perf_counter() - started_s


def read_prompt(path: str) -> dict[str, Any]:
    """The prompt in *path*, in API format or as the page saves it (where the server can convert that). Raises :class:`WarmupFailed`."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            document = json.load(file)
    except OSError as error:
        raise WarmupFailed(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise WarmupFailed(f"{path} is not JSON: {error}") from None
    if isinstance(document, dict) and isinstance(document.get("nodes"), list):
        return _converted(path, document)
    prompt = document.get("prompt", document) if isinstance(document, dict) else None
    if not isinstance(prompt, dict) or not all(isinstance(node, dict) and "class_type" in node for node in prompt.values()):
        raise WarmupFailed(f"{path} is neither a workflow as the page saves it nor a prompt; save it with Export or Export (API)")
    return prompt


def without_takers(prompt: Mapping[str, Any], outputs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(*prompt*, *outputs*) in which each output that no other node needs is replaced by nodes that show what it was given.

    Of *outputs*, the ids of the nodes that are to run, others stay.
    """
    needed = {value[0] for node in prompt.values() for value in node.get("inputs", {}).values() if _is_link(value)}
    changed, kept = copy.deepcopy(dict(prompt)), []
    for node_id in outputs:
        if node_id in needed:
            kept.append(node_id)
            continue
        given = {tuple(value) for value in changed.pop(node_id).get("inputs", {}).values() if _is_link(value)}
        for origin, slot in sorted(given):
            sink = f"warm-up {origin} {slot}"
            changed[sink] = {"class_type": SINK, "inputs": {"source": [origin, slot]}}
            if sink not in kept:
                kept.append(sink)
    return changed, kept


def _converted(path: str, document: dict[str, Any]) -> dict[str, Any]:
    try:
        conversion = importlib.import_module("app.workflow_conversion")
        node_info = importlib.import_module("app.packs.node_info").registered_node_info
    except ImportError:
        raise WarmupFailed(
            f"{path} is a workflow as the page saves it, which this server cannot convert; save it with Export (API)"
        ) from None
    try:
        prompt: dict[str, Any] = conversion.to_prompt(document, node_info)
    except conversion.WorkflowFormatError as error:
        raise WarmupFailed(f"{path}: {error}") from None
    return prompt


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _reasons(node_errors: Mapping[str, Any]) -> str:
    return "; ".join(
        f"node {node_id} ({found['class_type']}): {one['message']}: {one['details']}"
        for node_id, found in node_errors.items()
        for one in found["errors"]
    )


def _failure(messages: Any) -> str:
    for event, data in messages:
        if event == "execution_error":
            return f"node {data['node_id']} ({data['node_type']}): {data['exception_type']}: {str(data['exception_message']).strip()}"
    return "it was interrupted"


class PausedProviders:
    """A block in which the pack's *providers* give and take nothing, so that the warm-up computes instead of fetching."""

    def __init__(self, providers: list[Any]) -> None:
        self._providers = [_innermost(provider) for provider in providers]

    def __enter__(self) -> None:
        for provider in self._providers:
            provider.is_paused = True

    def __exit__(self, *_: object) -> None:
        for provider in self._providers:
            provider.is_paused = False


def _innermost(provider: Any) -> Any:
    while hasattr(provider, "inner"):
        provider = provider.inner
    return provider
