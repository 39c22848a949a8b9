"""What the gateway hears of v2's jobs while they run: progress, previews, outputs. Any part may be missing; the fleet has the truth."""

import asyncio
import json
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fleet.gateway.file_marks import marked_outputs
from protocol import BinaryEventTypes

MOST_STORIES = 10_000
ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of a node at work."""

    node_id: str
    content_type: str
    content: bytes


@dataclass(slots=True, eq=False)
class Story:
    """One job. *nodes* is the size of its workflow, *classes* the class of each node. *watchers* are woken by every change."""

    nodes: int = 0
    classes: dict[str, str] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    labels: Any = None
    priority: int | None = None
    started: datetime | None = None
    has_ended: bool = False
    is_canceling: bool = False
    finished: set[str] = field(default_factory=set)
    node: str | None = None
    step: float | None = None
    steps: float | None = None
    value: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)
    preview: Preview | None = None
    watchers: list[asyncio.Event] = field(default_factory=list)

    def progress(self) -> dict[str, Any]:
        """A snapshot, complete in itself. Its value never goes back."""
        share = self.step / self.steps if self.step and self.steps and self.node not in self.finished else 0.0
        total = max(self.nodes, len(self.finished))
        value = (len(self.finished) + min(1.0, share)) / total if total else 0.0
        self.value = max(self.value, min(1.0, value))
        is_known = self.step is not None and self.steps is not None
        return {
            "value": self.value,
            "nodes_done": len(self.finished),
            "nodes_total": total,
            "current_node": self.node,
            "current_node_class": self.classes.get(self.node) if self.node is not None else None,
            "step": int(self.step) if is_known and self.step is not None else None,
            "steps": int(self.steps) if is_known and self.steps is not None else None,
        }

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """An event that is set by every change while the block lasts; whoever waits clears it."""
        event = asyncio.Event()
        self.watchers.append(event)
        try:
            yield event
        finally:
            self.watchers.remove(event)

    def take(self, kind: str, data: dict[str, Any], server_id: str) -> None:
        """A message of the job's server."""
        if kind == "execution_start":
            self.started = datetime.now(UTC)
        elif kind == "execution_cached":
            self.finished.update(str(node) for node in data.get("nodes") or ())
        elif kind == "executing":
            self.node = None if data.get("node") is None else str(data["node"])
            self.step = self.steps = None
            self.has_ended = self.has_ended or self.node is None
        elif kind == "progress_state" and isinstance(data.get("nodes"), dict):
            self._take_nodes(data["nodes"])
        elif kind == "executed":
            self.outputs[str(data.get("node"))] = marked_outputs(data.get("output"), server_id)
        for watcher in self.watchers:
            watcher.set()

    def _take_nodes(self, nodes: dict[str, Any]) -> None:
        for node_id, state in nodes.items():
            if not isinstance(state, dict):
                continue
            if state.get("state") == "finished":
                self.finished.add(str(node_id))
            elif state.get("state") == "running":
                self.node, self.step, self.steps = str(node_id), _number(state.get("value")), _number(state.get("max"))

    def show(self, preview: Preview) -> None:
        """A newer picture."""
        self.preview = preview
        for watcher in self.watchers:
            watcher.set()


class Stories:
    """The stories by prompt id; hears the servers for all of v2's jobs of this gateway. On its loop."""

    def __init__(self) -> None:
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._runs: dict[str, str] = {}

    def begin(self, prompt_id: str, story: Story) -> None:
        """A job is about to be sent."""
        self._stories[prompt_id] = story
        if len(self._stories) > MOST_STORIES:
            self._stories.popitem(last=False)

    def drop(self, prompt_id: str) -> None:
        """It was not taken."""
        self._stories.pop(prompt_id, None)

    def get(self, prompt_id: str) -> Story | None:
        """What was heard of a job that was submitted here."""
        return self._stories.get(prompt_id)

    def heard_text(self, server_id: str, text: str, message: dict[str, Any]) -> None:
        """A message of a server."""
        data = message.get("data")
        if isinstance(data, dict) and isinstance(data.get("prompt_id"), str):
            self._runs[server_id] = data["prompt_id"]
            story = self._stories.get(data["prompt_id"])
            if story is not None:
                story.take(str(message.get("type")), data, server_id)

    def heard_bytes(self, server_id: str, frame: bytes) -> None:
        """A binary frame: a preview says whose it is, or belongs to what runs there."""
        prompt_id, preview = preview_in(frame)
        story = self._stories.get(prompt_id or self._runs.get(server_id, ""))
        if story is not None and preview is not None:
            story.show(preview)


def preview_in(frame: bytes) -> tuple[str | None, Preview | None]:
    """The prompt's id, if the frame says it, and the picture in a binary frame; ``(None, None)`` for frames of other kinds."""
    if len(frame) < 8:
        return None, None
    kind, number = struct.unpack_from(">II", frame)
    if kind == BinaryEventTypes.PREVIEW_IMAGE:
        return None, Preview("", "image/png" if number == 2 else "image/jpeg", frame[8:])
    if kind != BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA:
        return None, None
    try:
        metadata = json.loads(frame[8 : 8 + number])
    except ValueError:
        return None, None
    if not isinstance(metadata, dict):
        return None, None
    content_type = str(metadata.get("image_type") or "image/jpeg")
    prompt_id = metadata.get("prompt_id")
    shown = Preview(str(metadata.get("node_id") or ""), content_type, frame[8 + number :])
    return prompt_id if isinstance(prompt_id, str) else None, shown


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
