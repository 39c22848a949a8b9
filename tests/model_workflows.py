"""Workflows over the starter checkpoints, and what came of them."""

import io
import shutil

from live_server import ROOT, Run
from PIL import Image

STARTERS = ("starter-digits.safetensors", "starter-outlines.safetensors")


def node(class_type, **inputs):
    """One node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def workflow(checkpoint, seed):
    """Text to picture in two steps."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", text=f"a handwritten seven, number {seed}", clip=["model", 1]),
        "negative": node("CLIPTextEncode", text="", clip=["model", 1]),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sample": node(
            "KSampler",
            model=["model", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=2,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="picture"),
    }


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
