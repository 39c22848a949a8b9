"""Model files named by prompts that wait."""

import os

from app.running.pending_models import PendingModels
from comfy_execution.prompts.queue import PromptQueue


class Server:
    def queue_updated(self):
        """Nobody listens."""


def prompt(**inputs):
    return {"1": {"class_type": "Loader", "inputs": inputs}}


def test_waiting_prompts_name_files_until_they_run(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(b"")
    os.symlink(folder / "b.safetensors", folder / "link.safetensors")
    queue = PromptQueue(Server())
    asked = []
    pending = PendingModels(queue, lambda: asked.append(1) or {"checkpoints": (str(folder),)})
    assert pending.paths() == frozenset()
    queue.put((0, "first", prompt(ckpt_name="a.safetensors"), {}, [], {}))
    queue.put((1, "second", prompt(ckpt_name="link.safetensors", other=["1", 0], count=3), {}, [], {}))
    queue.put((2, "odd", {"1": "no node", "2": {"inputs": None}, "3": {"inputs": {"name": "missing.safetensors"}}}, {}, [], {}))
    a, b = str(folder / "a.safetensors"), str(folder / "b.safetensors")
    assert pending.paths() == {a, b}
    assert pending.paths() == {a, b} and len(asked) == 3
    queue.get()
    assert pending.paths() == {b}
    queue.wipe_queue()
    assert pending.paths() == frozenset()
