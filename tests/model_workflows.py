"""Workflows over the starter checkpoints, and the pictures they made."""

import io
import shutil

from live_server import ROOT, Run
from picture_prompts import node, text_to_picture
from PIL import Image

__all__ = ["STARTERS", "checkpoints", "models", "node", "result", "run", "with_starters", "workflow"]

STARTERS = ("starter-digits.safetensors", "starter-outlines.safetensors")


def workflow(checkpoint, seed):
    """Text to picture in two steps."""
    return text_to_picture(checkpoint, seed, f"a handwritten seven, number {seed}")


def result(done: Run):
    """The pixels and the receipts of a prompt that succeeded."""
    assert done.history["status"]["status_str"] == "success", done.history["status"]
    with Image.open(io.BytesIO(done.file_bytes())) as image:
        return image.convert("RGB").tobytes(), done.history.get("models", [])


def run(server, checkpoint, seed):
    """The pixels and the receipts of :func:`workflow`."""
    return result(server.run(workflow(checkpoint, seed), timeout_s=120))


def checkpoints(server):
    """The server's folder of checkpoints."""
    folder = server.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def with_starters(server):
    """*server*, with the starter checkpoints of its own."""
    for name in STARTERS:
        shutil.copy(ROOT / "models" / "checkpoints" / name, checkpoints(server) / name)
    return server


def models(server):
    """What ``GET /caches`` says of models: (figures, counters, entries)."""
    section = server.get("/caches")["models"]
    return section["stats"], section["stats"]["counters"], section["entries"]
