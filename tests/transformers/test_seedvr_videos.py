"""SeedVR2 over HTTP: a picture is restored, and a video, part by part, to files."""

import io

import numpy as np
import pytest
from picture_prompts import node
from PIL import Image
from seedvr_files import seedvr_file, seedvr_vae_file
from video_prompts import FPS, played

pytestmark = pytest.mark.timeout(600)
pytest.importorskip("av", reason="videos are written by PyAV: pip install av")


def restored(images, method, latent="encode", sampled="sample"):
    """Nodes that restore *images* twice as large, and give them their colours by *method*; ``done`` is the last."""
    settings = {"seed": 5, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    resize = {"resize_type": "scale by multiplier", "resize_type.multiplier": 2.0, "scale_method": "lanczos"}
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 8, "temporal_overlap": 4}
    return {
        "model": node("UNETLoader", unet_name="seedvr.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="seedvr_vae.safetensors"),
        "large": node("ResizeImageMaskNode", input=images, **resize),
        "filled": node("SeedVR2Preprocess", resized_images=["large", 0]),
        "encode": node("VAEEncodeTiled", pixels=["filled", 0], vae=["vae", 0], **tiles),
        "told": node("SeedVR2Conditioning", model=["model", 0], vae_conditioning=[latent, 0]),
        "sample": node("KSampler", model=["model", 0], positive=["told", 0], negative=["told", 1], latent_image=[latent, 0], **settings),
        "decode": node("VAEDecodeTiled", samples=[sampled, 0], vae=["vae", 0], **tiles),
        "done": node("SeedVR2PostProcessing", images=["decode", 0], original_resized_images=["large", 0], color_correction_method=method),
    }


@pytest.fixture
def server(start_server):
    server = start_server("--offline", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    for kind, name, write in (("diffusion_models", "seedvr", seedvr_file), ("vae", "seedvr_vae", seedvr_vae_file)):
        folder = server.base / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{name}.safetensors")
    (server.base / "input").mkdir(exist_ok=True)
    ramp = np.linspace(0, 255, 45 * 30 * 3).reshape(30, 45, 3).astype(np.uint8)
    Image.fromarray(ramp).save(server.base / "input" / "small.png")
    return server


def test_a_picture_is_restored(server):
    pictures = {}
    for method in ("none", "lab"):
        prompt = {"load": node("LoadImage", image="small.png"), **restored(["load", 0], method)}
        run = server.run({**prompt, "save": node("SaveImage", images=["done", 0], filename_prefix="restored")}, timeout_s=300)
        assert run.history["status"]["status_str"] == "success", run.history["status"]
        pictures[method] = np.asarray(Image.open(io.BytesIO(run.file_bytes()))).astype(float)
        assert pictures[method].shape == (60, 90, 3) and pictures[method].std() > 2
    original = np.asarray(Image.open(server.base / "input" / "small.png")).astype(float)
    assert abs(pictures["lab"].mean() - original.mean()) < 10 < abs(pictures["lab"] - pictures["none"]).max()


def test_a_video_is_restored_part_by_part(server):
    prompt = {
        "load": node("LoadImage", image="small.png"),
        "frames": node("RepeatImageBatch", image=["load", 0], amount=11),
        **restored(["frames", 0], "wavelet", latent="parts", sampled="merged"),
        "parts": node(
            "SeedVR2TemporalChunk",
            latent=["encode", 0],
            temporal_overlap=1,
            **{"chunking_mode": "manual", "chunking_mode.frames_per_chunk": 9},
        ),
        "merged": node("SeedVR2TemporalMerge", latents=["sample", 0], temporal_overlap=["parts", 1]),
        "video": node("CreateVideo", images=["done", 0], fps=FPS),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="video/made", format="auto", **{"format.codec": "auto"}),
    }
    frames, rate, seconds = played(server.run(prompt, timeout_s=300))
    assert len(frames) == 11 and frames[0].shape == (60, 90, 3) and rate == FPS and seconds == pytest.approx(11 / FPS, abs=0.01)
    assert frames[0].std() > 2
