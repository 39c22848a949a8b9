"""Model files named by prompts that wait."""

import os

from app.running import pending_models
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
    assert pending.paths() == ()
    queue.put((0, "first", prompt(ckpt_name="a.safetensors"), {}, [], {}))
    queue.put((1, "second", prompt(ckpt_name="link.safetensors", other=["1", 0], count=3), {}, [], {}))
    queue.put((2, "odd", {"1": "no node", "2": {"inputs": None}, "3": {"inputs": {"name": "missing.safetensors"}}}, {}, [], {}))
    a, b = str(folder / "a.safetensors"), str(folder / "b.safetensors")
    assert pending.paths() == (a, b)
    assert pending.paths() == (a, b) and len(asked) == 3
    queue.get()
    assert pending.paths() == (b,)
    queue.wipe_queue()
    assert pending.paths() == ()


def test_of_many_prompts_those_that_run_first_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pending_models, "PROMPTS_READ", 3)
    names = [f"{letter}.safetensors" for letter in "abcdef"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    queue = PromptQueue(Server())
    for number in [4, 1, 5, 2, 3, 0]:
        queue.put((number, f"prompt {number}", prompt(first=names[number]), {}, [], {}))
    pending = PendingModels(queue, lambda: {"checkpoints": (str(tmp_path),)})
    assert pending.paths() == tuple(str(tmp_path / name) for name in names[:3])


def test_files_come_in_the_order_in_which_the_prompts_will_run(tmp_path):
    names = [f"{letter}.safetensors" for letter in "abcdef"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    queue = PromptQueue(Server())
    pending = PendingModels(queue, lambda: {"checkpoints": (str(tmp_path),)})
    order = [4, 1, 5, 2, 3, 0]
    for number in order:
        queue.put((number, f"prompt {number}", prompt(first=names[number], second=names[0], again=names[number]), {}, [], {}))
    expected = [str(tmp_path / name) for name in names]
    assert pending.paths() == (expected[0], *(path for one in expected[1:] for path in (one, expected[0])))
