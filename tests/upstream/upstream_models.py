"""Small model files that an unpatched ComfyUI loads, with random weights: run by its interpreter, in its folder.

    cd ComfyUI && python …/tests/upstream/upstream_models.py MODELS_FOLDER

Two checkpoints and a diffusion model (a Wan of two layers), a text encoder of CLIP-L's size under two names, a TAESD as VAE.
"""

import os
import sys

sys.path.insert(0, os.getcwd())

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def filled(module, prefix="", dtype=torch.float16):
    """The module's weights, random, under *prefix*."""
    return {f"{prefix}{name}": torch.randn(value.shape).mul(0.02).to(dtype) for name, value in module.state_dict().items()}


def main(folder):
    """Write the files below *folder*."""
    import comfy.options

    comfy.options.enable_args_parsing()
    sys.argv[1:] = ["--cpu"]
    import comfy.ldm.wan.model
    import comfy.ops
    import comfy.taesd.taesd

    def place(kind, name):
        os.makedirs(os.path.join(folder, kind), exist_ok=True)
        return os.path.join(folder, kind, name)

    def wan():
        sizes = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 2}
        return comfy.ldm.wan.model.WanModel(**sizes, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init)

    for name in ("first.safetensors", "second.safetensors"):
        save_file(filled(wan(), "model.diffusion_model."), place("checkpoints", name))
    save_file(filled(wan()), place("diffusion_models", "unet.safetensors"))
    save_file(filled(comfy.taesd.taesd.TAESD()), place("vae", "vae.safetensors"))
    save_file(clip_l(), place("text_encoders", "clip_l.safetensors"))
    os.symlink("clip_l.safetensors", place("text_encoders", "clip_l_too.safetensors"))


def clip_l():
    """Weights in the layout of CLIP-L's text model, whose sizes ComfyUI takes for granted."""
    import json

    import comfy.clip_model
    import comfy.ops

    with open(os.path.join("comfy", "sd1_clip_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    model = comfy.clip_model.CLIPTextModel(config, torch.float16, "cpu", comfy.ops.disable_weight_init)
    return {name: value for name, value in filled(model).items() if name.startswith("text_model.")}


if __name__ == "__main__":
    main(sys.argv[1])
