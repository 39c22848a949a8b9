"""Wan over HTTP: every kind of model makes a video that plays, and the two models of a Wan 2.2 workflow are read once."""

import pytest
import text_encoder_files
import torch
from model_workflows import models
from picture_prompts import node
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from video_patch_files import patch_file, uni3c_tensors
from video_prompts import FPS, in_two, played, sampled, saved
from wan_files import wan_file
from wan_vae_files import wan22_vae_layout, wan_vae_file

pytestmark = pytest.mark.timeout(900)
pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH = 64, 48, 5
CONTEXT = text_encoder_files.T5_WIDTH
NETWORKS = {
    "high": ("t2v", {}),
    "low": ("t2v", {"seed": 1}),
    "i2v_high": ("t2v", {"channels": 36}),
    "i2v_low": ("t2v", {"channels": 36, "seed": 1}),
    "old_i2v": ("i2v", {}),
    "control": ("t2v", {"channels": 52, "reference": 16}),
    "vace": ("vace", {}),
    "camera": ("camera_2.2", {}),
    "5b": ("5b", {}),
    "animate": ("animate", {"faces": 512, "depth": 5}),
}
SEES = {"hidden_size": 1280, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16, "image_size": 28, "patch_size": 14}
SIMULATED_MIB = "8"  # the networks have 5 MiB each in float32


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: networks, a text encoder with its tokenizer, autoencoders, an image encoder, a LoRA."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders", "vae", "clip_vision", "loras", "model_patches"):
        (folder / kind).mkdir()
    for name, (kind, sizes) in NETWORKS.items():
        wan_file(folder / "diffusion_models" / f"{name}.safetensors", kind, context=CONTEXT, **sizes)
    encoder = text_encoder_files.text_model("umt5xxl")
    encoder["tokenizer_json"] = torch.frombuffer(bytearray(text_encoder_files.tokenizer_json(), "utf-8"), dtype=torch.uint8)
    save_file(encoder, folder / "text_encoders" / "umt5.safetensors")
    wan_vae_file(folder / "vae" / "wan.safetensors")
    wan_vae_file(folder / "vae" / "wan22.safetensors", layout=wan22_vae_layout)
    torch.manual_seed(4)
    eyes = CLIPVisionModelWithProjection(CLIPVisionConfig(**SEES, projection_dim=16)).half()
    save_file(dict(eyes.state_dict()), folder / "clip_vision" / "eyes.safetensors")
    patch_file(folder / "model_patches" / "uni3c.safetensors", uni3c_tensors(), torch.float16)
    changes = {"diffusion_model.blocks.0.self_attn.q": (128, 128), "diffusion_model.blocks.1.ffn.0": (192, 128)}
    numbers = torch.Generator().manual_seed(8)
    lora = {f"{name}.lora_down.weight": torch.randn(4, inner, generator=numbers) for name, (_, inner) in changes.items()}
    lora |= {f"{name}.lora_up.weight": torch.randn(outer, 4, generator=numbers) * 0.1 for name, (outer, _) in changes.items()}
    save_file(lora, folder / "loras" / "fast.safetensors")
    return folder


def with_models(start_server, files, *flags, name):
    server = start_server("--fp32-text-enc", "--offline", *flags, name=name, environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


def loaders(*networks, vae="wan"):
    """The loaders of a workflow, its texts, and a picture for those that need one; the networks are shifted, as in the templates."""
    found = {
        "clip": node("CLIPLoader", clip_name="umt5.safetensors", type="wan", device="default"),
        "vae": node("VAELoader", vae_name=f"{vae}.safetensors"),
        "positive": node("CLIPTextEncode", text="a user in the rain", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
    }
    for name in networks:
        found[name] = node("UNETLoader", unet_name=f"{name}.safetensors", weight_dtype="default")
        found[f"shifted {name}"] = node("ModelSamplingSD3", model=[name, 0], shift=5.0)
    return found


def from_text(seed=5):
    """Wan 2.2 14B: two models, the second with a LoRA."""
    lora = node("LoraLoaderModelOnly", model=["low", 0], lora_name="fast.safetensors", strength_model=0.8)
    return {
        **loaders("high", "low"),
        "lora": lora,
        "shifted low": node("ModelSamplingSD3", model=["lora", 0], shift=5.0),
        "latent": node("EmptyHunyuanLatentVideo", width=WIDTH, height=HEIGHT, length=LENGTH, batch_size=1),
        **in_two(["shifted high", 0], ["shifted low", 0], ["positive", 0], ["negative", 0], ["latent", 0], seed),
        **saved(["sample", 0], ["vae", 0]),
    }


def made_by(class_type, *networks, vae="wan", trim=False, seed=5, **inputs):
    """A workflow whose conditionings and latent come from one of Wan's nodes."""
    sizes = {"width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 1}
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]}
    prompt = {**loaders(*networks, vae=vae), "made": node(class_type, **sides, **sizes, **inputs)}
    ends, places = [[f"shifted {name}", 0] for name in networks], (["made", 0], ["made", 1], ["made", 2])
    if len(ends) == 2:
        prompt |= in_two(*ends, *places, seed)
    else:
        prompt["sample"] = sampled(ends[0], *places, seed)
    last = ["sample", 0]
    if trim:
        prompt["trim"], last = node("TrimVideoLatent", samples=last, trim_amount=["made", 3]), ["trim", 0]
    return {**prompt, **saved(last, ["vae", 0])}


def five_billion(seed=5, **inputs):
    """Wan 2.2 5B."""
    sizes = {"width": WIDTH, "height": 64, "length": LENGTH, "batch_size": 1}
    latent = node("Wan22ImageToVideoLatent", vae=["vae", 0], **sizes, **inputs)
    sample = sampled(["shifted 5b", 0], ["positive", 0], ["negative", 0], ["latent", 0], seed)
    return {**loaders("5b", vae="wan22"), "latent": latent, "sample": sample, **saved(["sample", 0], ["vae", 0])}


def animated(seed=5):
    """Wan 2.2's Animate in two parts, as its workflows go on: the second begins with the last frame of the first, which is cut off."""
    frames = {"width": 80, "height": 48, "batch_size": 12}
    seen = {"reference_image": ["picture", 0], "clip_vision_output": ["seen", 0], "character_mask": ["figure", 0]}
    videos = {f"{name}_video": [name, 0] for name in ("pose", "face", "background")}
    settings = {**seen, **videos, "continue_motion_max_frames": 1}
    first = made_by("WanAnimateToVideo", "animate", trim=True, seed=seed, **settings, video_frame_offset=0)
    goes_on = {**first["made"]["inputs"], "continue_motion": ["decode", 0], "video_frame_offset": ["made", 5]}
    return {
        **first,
        **SEEN,
        **{name: node("EmptyImage", color=color, **frames) for name, color in (("pose", 0x22CC44), ("face", 0xDDAA88), ("background", 99))},
        "figure": node("SolidMask", value=1.0, width=80, height=48),
        "again": node("WanAnimateToVideo", **goes_on),
        "sample again": sampled(["shifted animate", 0], ["again", 0], ["again", 1], ["again", 2], seed),
        "trim again": node("TrimVideoLatent", samples=["sample again", 0], trim_amount=["again", 3]),
        "decode again": node("VAEDecode", samples=["trim again", 0], vae=["vae", 0]),
        "new": node("ImageFromBatch", image=["decode again", 0], batch_index=["again", 4], length=4096),
        "both": node("ImageBatch", image1=["decode", 0], image2=["new", 0]),
        "video": node("CreateVideo", images=["both", 0], fps=FPS),
    }


def follows_a_rendering(seed=5):
    """Wan 2.1's picture to video with Uni3C's ControlNet."""
    prompt = {**made_by("WanImageToVideo", "old_i2v", seed=seed, start_image=["picture", 0], clip_vision_output=["seen", 0]), **SEEN}
    share = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    inputs = {"model": ["shifted old_i2v", 0], "model_patch": ["patch", 0], "vae": ["vae", 0], "render_video": ["picture", 0]}
    prompt["patch"] = node("ModelPatchLoader", name="uni3c.safetensors")
    prompt["followed"] = node("WanUni3CControlnetApply", **inputs, **share)
    prompt["sample"]["inputs"]["model"] = ["followed", 0]
    return prompt


PICTURE = {"start_image": ["picture", 0]}
SEEN = {
    "eyes": node("CLIPVisionLoader", clip_name="eyes.safetensors"),
    "seen": node("CLIPVisionEncode", clip_vision=["eyes", 0], image=["picture", 0], crop="none"),
}
CAMERA = {"camera_pose": "Zoom In", "width": WIDTH, "height": HEIGHT, "length": LENGTH}
PROMPTS = {
    "text, 2.2": from_text(),
    "picture, 2.2": made_by("WanImageToVideo", "i2v_high", "i2v_low", **PICTURE),
    "first and last frame, 2.2": made_by("WanFirstLastFrameToVideo", "i2v_high", "i2v_low", **PICTURE, end_image=["picture", 0]),
    "picture, 2.1": {**made_by("WanImageToVideo", "old_i2v", **PICTURE, clip_vision_output=["seen", 0]), **SEEN},
    "control video": made_by("Wan22FunControlToVideo", "control", control_video=["picture", 0], ref_image=["picture", 0]),
    "VACE": made_by("WanVaceToVideo", "vace", trim=True, strength=1.0, control_video=["picture", 0], reference_image=["picture", 0]),
    "camera": {
        **made_by("WanCameraImageToVideo", "camera", **PICTURE, camera_conditions=["moves", 0]),
        "moves": node("WanCameraEmbedding", **CAMERA),
    },
    "5B, text": five_billion(),
    "5B, picture": five_billion(**PICTURE),
    "Animate": animated(),
    "Uni3C": follows_a_rendering(),
}


def test_every_kind_of_model_makes_a_video_that_plays(start_server, files):
    server = with_models(start_server, files, name="all")
    levels = {}
    for name, prompt in PROMPTS.items():
        frames, rate, seconds = played(server.run(prompt, timeout_s=300))
        length = 2 * LENGTH - 1 if name == "Animate" else LENGTH
        assert len(frames) == length and rate == FPS and seconds == pytest.approx(length / FPS, abs=0.02), name
        assert frames[0].shape == (64 if name.startswith("5B") else HEIGHT, WIDTH, 3), name
        assert max(frame.std() for frame in frames) > 2, name  # not flat
        levels[name] = frames
    assert len({b"".join(frame.tobytes() for frame in frames) for frames in levels.values()}) == len(PROMPTS)


def test_a_pair_of_models_larger_than_the_card_is_read_once(start_server, files):
    flags = ("--ram-model-cache-mb", "500", "--simulated-vram-mb", SIMULATED_MIB, "--cache-none")
    server = with_models(start_server, files, *flags, name="pair")
    text, picture = from_text, lambda seed: made_by("WanImageToVideo", "i2v_high", "i2v_low", **PICTURE, seed=seed)
    first = {make: played(server.run(make(5), timeout_s=300))[0] for make in (text, picture)}
    stats, counters, entries = models(server)
    kept = sum(entry["bytes"] for entry in entries)
    assert int(SIMULATED_MIB) * 2**20 < kept < 500 * 2**20 and counters["evictions"] == {}, (kept, counters)
    read = counters["read_bytes"]
    for number, make in enumerate((text, picture, picture, text, text, picture)):
        run = server.run(make(6 + number), timeout_s=300)
        frames, _, _ = played(run)
        assert len(frames) == LENGTH
        receipts = run.history["models"]
        assert len(receipts) >= 4 and {receipt["tier"] for receipt in receipts} <= {"ram", "vram"}, receipts
    assert models(server)[1]["read_bytes"] == read
    again = played(server.run(text(5), timeout_s=300))[0]
    assert all((one == other).all() for one, other in zip(first[text], again, strict=True))
