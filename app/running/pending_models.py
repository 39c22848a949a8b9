"""Which model files the prompts that wait in the queue name, and in which order."""

import os
from collections.abc import Callable
from typing import Any

from comfy_execution.prompt_files.known_folders import FileRoots
from comfy_execution.prompt_files.named_files import OUTSIDE, NamedFiles
from comfy_execution.prompts.queue import next_in_order

PROMPTS_READ = 256


class PendingModels:
    """Reads *queue* (a ``PromptQueue``). Any thread may ask; each prompt is looked through once, as long as it waits."""

    def __init__(self, queue: Any, model_folders: Callable[[], dict[str, tuple[str, ...]]]) -> None:
        """*model_folders* gives the folders of every kind of model."""
        self._queue = queue
        self._model_folders = model_folders
        self._known: dict[str, tuple[str, ...]] = {}

    def paths(self) -> tuple[str, ...]:
        """Real paths of the files, prompt by prompt in the order in which they will run; each once for every prompt that names it.

        Blocks on the file system for prompts that are new.
        """
        waiting = next_in_order(self._queue.get_current_queue_volatile()[1], PROMPTS_READ)
        known, current = self._known, {}
        for row in waiting:
            current[row[1]] = known[row[1]] if row[1] in known else self._named(row[2])
        self._known = current
        return tuple(path for row in waiting for path in current[row[1]])

    def _named(self, prompt: Any) -> tuple[str, ...]:
        files = NamedFiles(FileRoots(self._model_folders(), {}))
        nodes = prompt.values() if isinstance(prompt, dict) else ()
        inputs = [node.get("inputs") for node in nodes if isinstance(node, dict)]
        values = [value for given in inputs if isinstance(given, dict) for value in given.values()]
        named = (os.path.realpath(path) for value in values for kind, path in files.behind(value) if kind != OUTSIDE)
        return tuple(dict.fromkeys(named))
