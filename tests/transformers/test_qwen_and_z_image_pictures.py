"""Text to picture with small Qwen-Image and Z-Image models over HTTP: files that open, the same bits on a small simulated accelerator, and
one error for files that do not belong together."""

import dataclasses
import io

import pytest
import torch
from picture_prompts import from_parts, node
from PIL import Image
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import (
    blockwise_tensors,
    fun_tensors,
    lumina_tensors,
    qwen_control_tensors,
    qwen_fun_tensors,
    qwen_image_tensors,
    qwen_text_tensors,
    random_weight,
    z_image_config,
)
from wan_vae_files import wan_vae_file

from benchmarks.make_checkpoint import family
from comfy.families.published_layout import vae_layout

pytestmark = pytest.mark.timeout(900)

QWEN25_WIDTH, QWEN3_WIDTH = 32, 48
SIMULATED_MIB = "12"  # less than Z-Image or either text encoder takes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: diffusion models, text encoders with a tokenizer beside them, an autoencoder of 16 channels each."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "model_patches", "controlnet", "text_encoders/qwen25_tokenizer", "vae"):
        (folder / kind).mkdir(parents=True)
    (folder / "text_encoders" / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    save_file(qwen_image_tensors(context=QWEN25_WIDTH), folder / "diffusion_models" / "qwen.safetensors")
    save_file(lumina_tensors(z_image_config(context=QWEN3_WIDTH)), folder / "diffusion_models" / "z.safetensors")
    save_file(blockwise_tensors(), folder / "model_patches" / "blockwise.safetensors")
    save_file(fun_tensors(), folder / "model_patches" / "fun.safetensors")
    save_file(qwen_control_tensors(context=QWEN25_WIDTH, mask=True), folder / "controlnet" / "instantx.safetensors")
    save_file(qwen_fun_tensors(), folder / "controlnet" / "fun.safetensors")
    qwen25 = qwen_text_tensors(vocabulary=VOCABULARY, width=QWEN25_WIDTH)
    save_file(qwen25, folder / "text_encoders" / "qwen25.safetensors")
    qwen3 = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=QWEN3_WIDTH)
    save_file(qwen3, folder / "text_encoders" / "qwen3.safetensors")
    wan_vae_file(folder / "vae" / "wan.safetensors")
    flux_vae = dataclasses.replace(family("sd15", 10).vae, latent_channels=16, quant_conv=False)
    generator = torch.Generator().manual_seed(4)
    tensors = {name: random_weight(name, shape, generator) for name, shape in vae_layout(flux_vae).items()}
    save_file(tensors, folder / "vae" / "ae.safetensors")
    return folder


def workflow(model, clip, kind, vae, seed=5):
    """Text to picture from separate files, as the official templates do it."""
    clip = node("CLIPLoader", clip_name=f"{clip}.safetensors", type=kind, device="default")
    return from_parts(model, clip, vae, seed, shifted=node("ModelSamplingAuraFlow", model=["model", 0], shift=3.1))


def edited(prompt):
    """*prompt* with an instruction about a picture in place of its text."""
    instruction = node("TextEncodeQwenImageEdit", clip=["clip", 0], prompt="make it blue", vae=["vae", 0], image=["picture", 0])
    picture = node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699)
    return {**prompt, "picture": picture, "positive": instruction}


def controlled(prompt, patch, loader="QwenImageDiffsynthControlnet"):
    """*prompt*, whose model looks at a picture by a model patch."""
    sockets = {"model": ["shifted", 0], "model_patch": ["patch", 0], "vae": ["vae", 0], "image": ["picture", 0], "strength": 1.0}
    return {
        **prompt,
        "picture": node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699),
        "patch": node("ModelPatchLoader", name=f"{patch}.safetensors"),
        "controlled": node(loader, **sockets),
        "sample": node("KSampler", **{**prompt["sample"]["inputs"], "model": ["controlled", 0]}),
    }


def filled_in(prompt):
    """*prompt* with a part of a picture filled in by one ControlNet while another one steers."""
    sides = {"positive": ["steered", 0], "negative": ["steered", 1]}
    share = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "vae": ["vae", 0], "image": ["picture", 0]}
    return {
        **prompt,
        "picture": node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699),
        "mask": node("SolidMask", value=1.0, width=64, height=48),
        "fun": node("ControlNetLoader", control_net_name="fun.safetensors"),
        "steered": node("ControlNetApplyAdvanced", positive=["positive", 0], negative=["negative", 0], control_net=["fun", 0], **share),
        "instantx": node("ControlNetLoader", control_net_name="instantx.safetensors"),
        "filled": node("ControlNetInpaintingAliMamaApply", **sides, control_net=["instantx", 0], mask=["mask", 0], **share),
        "sample": node("KSampler", **{**prompt["sample"]["inputs"], "positive": ["filled", 0], "negative": ["filled", 1]}),
    }


PROMPTS = {"Qwen-Image": workflow("qwen", "qwen25", "qwen_image", "wan"), "Z-Image": workflow("z", "qwen3", "lumina2", "ae")}
CONTROLLED = {
    "Qwen-Image": controlled(PROMPTS["Qwen-Image"], "blockwise"),
    "Z-Image": controlled(PROMPTS["Z-Image"], "fun", "ZImageFunControlnet"),
}
WRONG = (
    (filled_in(PROMPTS["Z-Image"]), ("z.safetensors", "fun.safetensors")),
    (workflow("qwen", "qwen3", "lumina2", "wan"), ("qwen.safetensors", "qwen3.safetensors")),
    (workflow("qwen", "qwen25", "qwen_image", "ae"), ("qwen.safetensors", "ae.safetensors")),
    (controlled(PROMPTS["Z-Image"], "blockwise"), ("z.safetensors", "blockwise.safetensors")),
)


def with_models(start_server, files, *flags, name):
    server = start_server("--fp32-text-enc", "--offline", *flags, name=name, environment={"OMP_NUM_THREADS": "1"})
    for kind in ("diffusion_models", "model_patches", "controlnet", "text_encoders", "vae"):
        place = server.base / "models" / kind
        place.mkdir(parents=True, exist_ok=True)
        for file in (files / kind).iterdir():
            (place / file.name).symlink_to(file)
    return server


def pixels(server, prompt):
    run = server.run(prompt, timeout_s=400)
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with Image.open(io.BytesIO(run.file_bytes())) as image:
        assert image.size == (64, 48)
        return image.convert("RGB").tobytes()


def test_pictures_are_the_same_bits_on_a_small_accelerator(start_server, files):
    unlimited = with_models(start_server, files, name="unlimited")
    reference = {name: pixels(unlimited, prompt) for name, prompt in PROMPTS.items()}
    assert all(len(set(picture)) > 20 for picture in reference.values())  # not flat
    about_picture = pixels(unlimited, edited(PROMPTS["Qwen-Image"]))
    assert about_picture != reference["Qwen-Image"]
    filled = pixels(unlimited, filled_in(PROMPTS["Qwen-Image"]))
    assert filled != reference["Qwen-Image"]
    looking = {name: pixels(unlimited, prompt) for name, prompt in CONTROLLED.items()}
    assert all(picture != reference[name] for name, picture in looking.items())
    unlimited.stop()
    limited = with_models(start_server, files, "--simulated-vram-mb", SIMULATED_MIB, name="limited")
    for name, prompt in PROMPTS.items():
        assert pixels(limited, prompt) == reference[name], name
        assert pixels(limited, CONTROLLED[name]) == looking[name], name
    assert pixels(limited, edited(PROMPTS["Qwen-Image"])) == about_picture
    assert pixels(limited, filled_in(PROMPTS["Qwen-Image"])) == filled


def test_files_that_do_not_belong_together_are_one_error(start_server, files):
    server = with_models(start_server, files, name="wrong")
    for prompt, names in WRONG:
        run = server.run(prompt, timeout_s=400)
        assert run.history["status"]["status_str"] == "error"
        text = str(run.history["status"])
        assert all(name in text for name in names), text
