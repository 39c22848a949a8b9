"""Models in folders of the Diffusers library: one file per part, each in a folder named after it."""

import os
from collections.abc import Iterable
from typing import Any

import comfy.sd

KINDS = (".fp16.safetensors", ".safetensors", ".fp16.bin", ".bin")


def first_file(path: str, filenames: Iterable[str]) -> str | None:
    """The path of the first of *filenames* that is in the folder *path*, or None."""
    return next((os.path.join(path, name) for name in filenames if os.path.exists(os.path.join(path, name))), None)


def load_diffusers(
    model_path: str, output_vae: bool = True, output_clip: bool = True, embedding_directory: Any = None
) -> tuple[Any, Any, Any]:
    """Model patcher, CLIP and VAE of the folder *model_path*; None for those not asked for.

    Raises ``FileNotFoundError`` for a part without a file, and what loading its file raises.
    """
    model = comfy.sd.load_diffusion_model(_file(model_path, "unet", "diffusion_pytorch_model"))
    clip = vae = None
    if output_clip:
        texts = [_file(model_path, "text_encoder", "model", "pytorch_model")]
        if os.path.isdir(os.path.join(model_path, "text_encoder_2")):
            texts.append(_file(model_path, "text_encoder_2", "model", "pytorch_model"))
        clip = comfy.sd.load_clip(texts, embedding_directory=embedding_directory)
    if output_vae:
        vae = comfy.sd.load_vae(_file(model_path, "vae", "diffusion_pytorch_model"))
    return model, clip, vae


def _file(model_path: str, part: str, *stems: str) -> str:
    folder = os.path.join(model_path, part)
    found = first_file(folder, [stem + kind for kind in KINDS for stem in stems])
    if found is None:
        raise FileNotFoundError(f"{folder} holds no weights; expected {stems[0]}.safetensors or one of its other forms")
    return found
