"""HunyuanVideo 1.5 over HTTP: text, a picture, and a larger video with more detail make videos that play."""

import pytest
import torch
from hunyuan_files import byt5_tensors, hunyuan_file, hunyuan_vae_file, upscaler_tensors
from picture_prompts import node
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import qwen_text_tensors
from transformers import SiglipVisionConfig, SiglipVisionModel
from video_prompts import FPS, played, sampled, saved

pytestmark = pytest.mark.timeout(900)
pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH, CONTEXT = 96, 64, 5, 32
SEES = {"hidden_size": 1152, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16, "image_size": 28, "patch_size": 14}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: networks, text encoders with a tokenizer beside them, an autoencoder, an image encoder, an upscaler."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders/qwen25_tokenizer", "vae", "clip_vision", "latent_upscale_models"):
        (folder / kind).mkdir(parents=True)
    hunyuan_file(folder / "diffusion_models" / "plain.safetensors", context=CONTEXT)
    hunyuan_file(folder / "diffusion_models" / "detail.safetensors", 1, context=CONTEXT, channels=98)
    (folder / "text_encoders" / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    save_file(qwen_text_tensors(vocabulary=VOCABULARY, width=CONTEXT), folder / "text_encoders" / "qwen25.safetensors")
    save_file(byt5_tensors(), folder / "text_encoders" / "byt5.safetensors")
    hunyuan_vae_file(folder / "vae" / "hunyuan.safetensors")
    torch.manual_seed(6)
    eyes = SiglipVisionModel(SiglipVisionConfig(**SEES)).half()
    weights = {f"vision_model.{key}": value for key, value in eyes.state_dict().items() if not key.endswith("position_ids")}
    save_file(weights, folder / "clip_vision" / "eyes.safetensors")
    save_file(upscaler_tensors(), folder / "latent_upscale_models" / "sharper.safetensors")
    return folder


def with_models(server, files):
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


def loaders():
    """The loaders of a workflow, its texts, and a picture."""
    return {
        "model": node("UNETLoader", unet_name="plain.safetensors", weight_dtype="default"),
        "shifted": node("ModelSamplingSD3", model=["model", 0], shift=7.0),
        "clip": node("DualCLIPLoader", clip_name1="qwen25.safetensors", clip_name2="byt5.safetensors", type="hunyuan_video_15"),
        "vae": node("VAELoader", vae_name="hunyuan.safetensors"),
        "positive": node("CLIPTextEncode", text='a user writes "ok"', clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "latent": node("EmptyHunyuanVideo15Latent", width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1),
    }


def from_text():
    """Text to video."""
    sample = sampled(["shifted", 0], ["positive", 0], ["negative", 0], ["latent", 0], cfg=2.0)
    return {**loaders(), "sample": sample, **saved(["sample", 0], ["vae", 0])}


def from_picture():
    """A picture to video, seen by an image encoder."""
    sizes = {"width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 1}
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]}
    begun = {"start_image": ["picture", 0], "clip_vision_output": ["seen", 0]}
    return {
        **loaders(),
        "eyes": node("CLIPVisionLoader", clip_name="eyes.safetensors"),
        "seen": node("CLIPVisionEncode", clip_vision=["eyes", 0], image=["picture", 0], crop="center"),
        "made": node("HunyuanVideo15ImageToVideo", **sides, **sizes, **begun),
        "sample": sampled(["shifted", 0], ["made", 0], ["made", 1], ["made", 2], cfg=2.0),
        **saved(["sample", 0], ["vae", 0]),
    }


def larger():
    """A video made larger, sharper, and given detail by the second network."""
    size = {"width": 2 * WIDTH, "height": 2 * HEIGHT, "upscale_method": "bilinear", "crop": "disabled"}
    sides = {"positive": ["positive", 0], "negative": ["negative", 0]}
    return {
        **from_text(),
        "sharper": node("LatentUpscaleModelLoader", model_name="sharper.safetensors"),
        "larger": node("HunyuanVideo15LatentUpscaleWithModel", model=["sharper", 0], samples=["sample", 0], **size),
        "told": node("HunyuanVideo15SuperResolution", **sides, latent=["larger", 0], noise_augmentation=0.7),
        "second": node("UNETLoader", unet_name="detail.safetensors", weight_dtype="default"),
        "detail": sampled(["second", 0], ["told", 0], ["told", 1], ["told", 2], cfg=1.0),
        **saved(["detail", 0], ["vae", 0]),
    }


def test_every_workflow_makes_a_video_that_plays(start_server, files):
    flags = ("--fp32-text-enc", "--offline", "--ram-model-cache-mb", "1000")
    server = start_server(*flags, name="hunyuan", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    with_models(server, files)
    made = []
    for prompt, scale in ((from_text(), 1), (from_picture(), 1), (larger(), 2)):
        run = server.run(prompt, timeout_s=300)
        frames, rate, seconds = played(run)
        assert len(frames) == LENGTH and rate == FPS and seconds == pytest.approx(LENGTH / FPS, abs=0.02)
        assert frames[0].shape == (scale * HEIGHT, scale * WIDTH, 3) and max(frame.std() for frame in frames) > 2
        made.append(b"".join(frame.tobytes() for frame in frames))
        assert run.history["models"], "what was loaded"
    assert len(set(made)) == 3
    assert {receipt["model"] for receipt in run.history["models"]} >= {"latent_upscaler of sharper.safetensors"}
