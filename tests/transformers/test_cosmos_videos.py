"""Cosmos 1 over HTTP: a text, and a text with first and last pictures, make videos that play; a checkpoint does as well."""

import pytest
import text_encoder_files
import torch
from cosmos_files import cosmos_vae_file, cosmos_vae_tensors, first_cosmos_file, first_cosmos_tensors
from image_family_files import as_bytes
from picture_prompts import node
from safetensors.torch import load_file, save_file
from video_prompts import FPS, played, sampled, saved

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH = 64, 48, 17
SIZES = {"width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 1}
CONTEXT = text_encoder_files.T5_WIDTH


def put_models(server):
    """Networks, the first T5 with its tokenizer, the autoencoder, and a checkpoint with all of them."""
    folder = server.base / "models"
    for kind in ("checkpoints", "diffusion_models", "text_encoders", "vae"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    first_cosmos_file(folder / "diffusion_models" / "text.safetensors", context=CONTEXT)
    first_cosmos_file(folder / "diffusion_models" / "frames.safetensors", context=CONTEXT, channels=17)
    cosmos_vae_file(folder / "vae" / "cosmos.safetensors")
    t5, tokenizer = text_encoder_files.text_model("t5xxl_old"), as_bytes(text_encoder_files.tokenizer_json())
    save_file({**t5, "tokenizer_json": tokenizer}, folder / "text_encoders" / "t5.safetensors")
    whole = {f"model.diffusion_model.{name}": value for name, value in first_cosmos_tensors(context=CONTEXT).items()}
    whole |= {f"vae.{name}": value for name, value in cosmos_vae_tensors().items()}
    whole |= {f"text_encoders.t5xxl.transformer.{name}": value for name, value in t5.items()}
    save_file({**whole, "text_encoders.tokenizer_json": tokenizer}, folder / "checkpoints" / "whole.safetensors")


def prompt(model, latent, **more):
    """A workflow as ComfyUI's examples have it."""
    parts = {
        "model": node("UNETLoader", unet_name=f"{model}.safetensors", weight_dtype="default"),
        "clip": node("CLIPLoader", clip_name="t5.safetensors", type="cosmos", device="default"),
        "vae": node("VAELoader", vae_name="cosmos.safetensors"),
        "positive": node("CLIPTextEncode", text="a user walks", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "latent": latent,
        "sample": sampled(["model", 0], ["positive", 0], ["negative", 0], ["latent", 0], sampler_name="res_multistep", scheduler="karras"),
        **saved(["sample", 0], ["vae", 0]),
    }
    return {**parts, **more}


def empty():
    return node("EmptyCosmosLatentVideo", **SIZES)


def begun(**pictures):
    """A latent that begins or ends with a picture."""
    latent = node("CosmosImageToVideoLatent", vae=["vae", 0], **SIZES, **dict.fromkeys(pictures, ["picture", 0]))
    return latent, node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699)


def from_pictures(*names):
    latent, picture = begun(**dict.fromkeys(names))
    return prompt("frames", latent, picture=picture)


def kept(name):
    """Saves the latent: videos of equal frames may differ by a level once they are encoded."""
    return node("SaveLatent", samples=["sample", 0], filename_prefix=f"latents/{name}")


def tiled():
    decode = node("VAEDecodeTiled", samples=["sample", 0], vae=["vae", 0], tile_size=64, overlap=16, temporal_size=16, temporal_overlap=8)
    return prompt("text", empty(), decode=decode)


def as_flow():
    """Text to video with other levels, which the model was not trained for."""
    flow = node("ModelSamplingContinuousEDM", model=["model", 0], sampling="cosmos_rflow", sigma_max=80.0, sigma_min=0.002)
    changed = prompt("text", empty(), flow=flow)
    changed["sample"]["inputs"]["model"] = ["flow", 0]
    return changed


def test_every_workflow_makes_a_video_that_plays(start_server):
    flags = ("--fp32-text-enc", "--fp32-vae", "--offline", "--ram-model-cache-mb", "1000")
    server = start_server(*flags, name="cosmos", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    put_models(server)
    made = []
    asked = [prompt("text", empty()), tiled(), as_flow(), from_pictures("start_image"), from_pictures("start_image", "end_image")]
    for one in asked:
        run = server.run(one, timeout_s=300)
        frames, rate, seconds = played(run)
        assert len(frames) == LENGTH and rate == FPS and seconds == pytest.approx(LENGTH / FPS, abs=0.02)
        assert frames[0].shape == (HEIGHT, WIDTH, 3) and max(frame.std() for frame in frames) > 2
        made.append(b"".join(frame.tobytes() for frame in frames))
    assert len({*made[:1], *made[2:]}) == 4
    whole = {name: one for name, one in prompt("text", empty()).items() if name not in ("clip", "vae")}
    whole["model"] = node("CheckpointLoaderSimple", ckpt_name="whole.safetensors")
    for name, given in (("positive", "clip"), ("negative", "clip"), ("decode", "vae")):
        whole[name]["inputs"][given] = ["model", {"clip": 1, "vae": 2}[given]]
    frames, _, _ = played(server.run(whole, timeout_s=300))
    assert len(frames) == LENGTH
    latents = []
    for name, made_from in (("parts", asked[0]), ("whole", whole)):
        shown = {part: one for part, one in made_from.items() if part not in ("decode", "video", "save", "vae")}
        assert server.run({**shown, "keep": kept(name)}, timeout_s=300).history["status"]["status_str"] == "success"
        (file,) = (server.base / "output").rglob(f"{name}_*.latent")
        latents.append(load_file(file)["latent_tensor"])
    torch.testing.assert_close(*latents)
