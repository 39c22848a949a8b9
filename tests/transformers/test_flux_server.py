"""Flux over HTTP, with a picture to look at: from single files, from a checkpoint, on the processor and a small simulated accelerator."""

import dataclasses

import pytest
import text_encoder_files
import torch
from model_workflows import result
from picture_prompts import node
from safetensors.torch import save_file
from transformer_files import flux_tensors, random_weight

from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import vae_layout

SIMULATED_MIB = 40  # the network has 26 MiB in bf16, and is computed in fp32
SIZES = {"context": text_encoder_files.T5_WIDTH, "vector": text_encoder_files.CLIP_WIDTH}
AE = KlVaeConfig(3, 16, (32, 64, 64, 64), 2, False)
THREAD = {"OMP_NUM_THREADS": "1"}
START_S = 300


@pytest.fixture(scope="module")
def parts():
    """The tensors of a small Flux, its text encoders and its autoencoder."""
    generator = torch.Generator().manual_seed(3)
    t5 = text_encoder_files.text_model("t5xxl")
    t5["tokenizer_json"] = torch.frombuffer(bytearray(text_encoder_files.tokenizer_json(), "utf-8"), dtype=torch.uint8)
    return {
        "network": flux_tensors(dtype=torch.bfloat16, **SIZES),
        "clip_l": text_encoder_files.text_model("clip_l"),
        "t5xxl": t5,
        "ae": {name: random_weight(name, shape, generator) for name, shape in vae_layout(AE).items()},
    }


def place(server, parts):
    """Write the files where *server* looks for them."""
    models = server.base / "models"
    files = {"diffusion_models": "network", "text_encoders": "clip_l", "vae": "ae"}
    for folder, part in [*files.items(), ("text_encoders", "t5xxl")]:
        (models / folder).mkdir(parents=True, exist_ok=True)
        save_file(parts[part], models / folder / f"{part}.safetensors")
    prefixes = {"network": "model.diffusion_model.", "ae": "vae."}
    prefixes |= {name: f"text_encoders.{name}.transformer." for name in ("clip_l", "t5xxl")}
    whole = {prefix + key: value for part, prefix in prefixes.items() for key, value in parts[part].items()}
    (models / "checkpoints").mkdir(parents=True, exist_ok=True)
    save_file(whole, models / "checkpoints" / "whole.safetensors")


def prompt(seed, whole=False):
    """Text to picture: a guided prompt, a picture to look at, two steps."""
    model, clip, vae = (["whole", number] for number in range(3)) if whole else (["network", 0], ["clip", 0], ["ae", 0])
    loaders = {
        "network": node("UNETLoader", unet_name="network.safetensors", weight_dtype="default"),
        "clip": node("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "ae": node("VAELoader", vae_name="ae.safetensors"),
    }
    return (loaders if not whole else {"whole": node("CheckpointLoaderSimple", ckpt_name="whole.safetensors")}) | {
        "text": node("CLIPTextEncodeFlux", clip=clip, clip_l="a red apple", t5xxl="a red apple on a table", guidance=3.5),
        "guided": node("FluxGuidance", conditioning=["text", 0], guidance=2.0),
        "picture": node("EmptyImage", width=48, height=32, batch_size=1, color=8421376),
        "seen": node("VAEEncode", pixels=["picture", 0], vae=vae),
        "looked": node("ReferenceLatent", conditioning=["guided", 0], latent=["seen", 0]),
        "nothing": node("ConditioningZeroOut", conditioning=["text", 0]),
        "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "shifted": node("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=64, height=64),
        "sample": node(
            "KSampler",
            model=["shifted", 0],
            positive=["looked", 0],
            negative=["nothing", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=2,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=vae),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="flux"),
    }


@pytest.mark.timeout(1200)
def test_pictures_are_equal_from_single_files_a_checkpoint_and_on_a_simulated_accelerator(start_server, parts):
    server = start_server("--ram-model-cache-mb", "1000", name="processor", environment=THREAD, start_timeout_s=START_S)
    place(server, parts)
    pictures, receipts = result(server.run(prompt(1), timeout_s=240))
    assert len(set(pictures)) > 20 and len(receipts) >= 3
    again, receipts = result(server.run(prompt(2), timeout_s=240))
    assert again != pictures and not any(receipt.get("bytes_read") for receipt in receipts), receipts
    whole, _ = result(server.run(prompt(1, whole=True), timeout_s=240))
    assert whole == pictures
    refuses_wrong_pairs(server)
    server.stop()

    limited = start_server("--simulated-vram-mb", str(SIMULATED_MIB), name="limited", environment=THREAD, start_timeout_s=START_S)
    place(limited, parts)
    assert result(limited.run(prompt(1), timeout_s=240))[0] == pictures


def refuses_wrong_pairs(server):
    """A text encoder, a LoRA and an autoencoder of another family each end in an error that names both files."""
    models = server.base / "models"
    (models / "loras").mkdir(exist_ok=True)
    save_file({"lora_unet_down_blocks_0_resnets_0.lora_up.weight": torch.zeros(2, 2)}, models / "loras" / "sd.safetensors")
    four = dataclasses.replace(AE, latent_channels=4)
    save_file({name: torch.zeros(shape) for name, shape in vae_layout(four).items()}, models / "vae" / "four.safetensors")

    encoder = prompt(3) | {
        "clip": node("CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion"),
        "text": node("CLIPTextEncode", clip=["clip", 0], text="a red apple"),
    }
    lora, autoencoder, picture = prompt(3), prompt(3), prompt(3)
    lora["lora"] = node("LoraLoaderModelOnly", model=["network", 0], lora_name="sd.safetensors", strength_model=1.0)
    lora["shifted"]["inputs"]["model"] = ["lora", 0]
    autoencoder["four"] = picture["four"] = node("VAELoader", vae_name="four.safetensors")
    autoencoder["decode"]["inputs"]["vae"] = picture["seen"]["inputs"]["vae"] = ["four", 0]
    for wrong, other in ((encoder, "clip_l"), (lora, "sd"), (autoencoder, "four"), (picture, "four")):
        status = server.run(wrong, timeout_s=240).history["status"]
        said = status["messages"][-1][1]["exception_message"]
        assert "network.safetensors" in said and f"{other}.safetensors" in said, said
