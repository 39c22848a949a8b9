"""Small diffusion models for the comparison with an upstream ComfyUI, and the pack that both servers get to load and feed them."""

import dataclasses
import importlib
import importlib.util
import math
import pathlib
import sys

import pack_faces
import torch
from live_server import ROOT
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(ROOT / "benchmarks"))

import make_addons  # noqa: E402
import make_checkpoint  # noqa: E402

WIDTH = 64
SIZES = {
    "sd15": dataclasses.replace(make_checkpoint.UNETS["sd15"], model_channels=WIDTH),
    "sdxl": dataclasses.replace(make_checkpoint.UNETS["sdxl-light"], model_channels=WIDTH),
}
GUIDED = dataclasses.replace(SIZES["sd15"], in_channels=8)

PACK = '''"""Conditioning of any size, and diffusion models of small sizes on a server that knows families by their width."""

import json
import os

import comfy.supported_models
import folder_paths
import torch
from safetensors.torch import save_file


def small(family, **sizes):
    """The family *family* for models of other *sizes*."""
    return type(family.__name__, (family,), {"unet_config": {**family.unet_config, **sizes}})


if "Tiny" not in vars(comfy.supported_models):
    comfy.supported_models.Tiny = True
    models = getattr(comfy.supported_models, "models", None)
    if models is not None and hasattr(comfy.supported_models.SD15, "unet_config"):
        models.insert(0, small(comfy.supported_models.SD15, model_channels=64))
        models.insert(0, small(comfy.supported_models.SD15_instructpix2pix, model_channels=64))
        models.insert(0, small(comfy.supported_models.SDXL, model_channels=64, transformer_depth=[0, 0, 1, 1, 2, 2]))


class RandomConditioning:
    """Seeded conditioning of *tokens* tokens of *width* channels, with a pooled vector of *pooled* channels (0: none) and, with *picture*,
    the latent of a picture."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        size = ("INT", {"default": 0, "max": 1 << 20})
        return {"required": {"seed": size, "tokens": size, "width": size, "pooled": size}, "optional": {"picture": ("BOOLEAN",)}}

    def make(self, seed, tokens, width, pooled, picture=False):
        generator = torch.Generator().manual_seed(seed)
        cond = torch.randn(1, tokens, width, generator=generator)
        options = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        if picture:
            options["concat_latent_image"] = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(0))
        return ([[cond, options]],)


class Keep:
    """Keeps a latent, pictures, a mask, numbers or a text as the file *name* in the output folder."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",), "name": ("STRING",)}}

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def keep(self, value, name):
        value = value["samples"] if isinstance(value, dict) and "samples" in value else value
        path = os.path.join(folder_paths.get_output_directory(), name)
        if isinstance(value, torch.Tensor):
            save_file({"kept": value.detach().float().contiguous().clone()}, path)
        else:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(value, file, default=str)
        return {}


class RandomPictures:
    """*count* seeded pictures of soft colours, as IMAGE, and a round MASK."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        size = ("INT", {"default": 1, "max": 1 << 20})
        return {"required": {"seed": size, "width": size, "height": size, "count": size}}

    def make(self, seed, width, height, count):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 9, 9, generator=generator)
        pictures = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)
        down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        return (pictures, ((down**2 + across**2) < 0.4).float()[None])


class RandomEmbeds:
    """What an image encoder with *width* numbers per picture gives, seeded."""

    RETURN_TYPES = ("EMBEDS",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        size = ("INT", {"default": 0, "max": 1 << 20})
        return {"required": {"seed": size, "width": size}}

    def make(self, seed, width):
        return (torch.randn(1, width, generator=torch.Generator().manual_seed(seed)),)


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (RandomConditioning, RandomEmbeds, RandomPictures, Keep)}
'''


def write_models(models: pathlib.Path) -> None:
    """Write into the folder *models*: ``small-sd15``, ``small-sdxl`` and ``small-pix2pix``, a LoRA, image and face adapters,
    and ``small-sd15`` whole with a LoRA and a ControlNet; with ``gguf``
    installed also a GGUF file.
    """
    for folder in ("checkpoints", "controlnet", "diffusion_models", "unet", "loras", "ipadapter"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    for name, sizes in {**SIZES, "pix2pix": GUIDED}.items():
        path = str(models / "diffusion_models" / f"small-{name}.safetensors")
        make_checkpoint.write_checkpoint(path, make_checkpoint.unet_layout(sizes), seed=3, dtype="fp32")
    _write_whole(models)
    for name in SIZES:
        _write_ip_adapter(models / "ipadapter" / f"small-{name}.safetensors", name)
    _write_lora(models)
    pack_faces.write_faces(models, SIZES["sdxl"])
    if importlib.util.find_spec("gguf") is not None:
        _write_gguf(models)


def _write_whole(models: pathlib.Path) -> None:
    """A checkpoint of a small UNet with a text encoder and a VAE of the published sizes, a LoRA of both models, and a ControlNet."""
    whole = make_checkpoint.Family(SIZES["sd15"], make_checkpoint.VAE, make_checkpoint.CLIP_L, None)
    path = str(models / "checkpoints" / "small-sd15.safetensors")
    make_checkpoint.write_checkpoint(path, make_checkpoint.checkpoint_layout(whole), seed=6, dtype="fp16")
    save_file(make_addons.lora_tensors(whole), models / "loras" / "small-whole.safetensors")
    path = str(models / "controlnet" / "small-sd15.safetensors")
    make_checkpoint.write_checkpoint(path, make_addons.controlnet_layout(whole), seed=2, dtype="fp32")


def _write_lora(models: pathlib.Path) -> None:
    layout = make_checkpoint.unet_layout(SIZES["sd15"])
    generator, tensors = torch.Generator().manual_seed(4), {}
    for key in [key for key in layout if key.endswith(("to_q.weight", "to_v.weight", "in_layers.2.weight"))]:
        rows, columns = layout[key][0], math.prod(layout[key][1:])
        name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 4, *(1,) * (len(layout[key]) - 2), generator=generator)
        tensors[f"{name}.lora_down.weight"] = torch.randn(4, *layout[key][1:], generator=generator) * columns**-0.5
    save_file(tensors, models / "loras" / "small-sd15.safetensors")


def _write_ip_adapter(path: pathlib.Path, family: str) -> None:
    """An image adapter (Ye et al., arXiv:2308.06721) for a picture encoder of 64 numbers; published ones number the full model's blocks."""
    level = {"sd15": (1, 1, 1, 1), "sdxl": (0, 2, 10)}[family]
    widths = [WIDTH * multiple for multiple in SIZES[family].channel_mult]
    blocks = [widths[at] for at, depth in enumerate(level) for _ in range(2 * depth) if family == "sdxl" or at < 3]
    blocks += [widths[at] for at, depth in reversed(list(enumerate(level))) for _ in range(3 * depth) if family == "sdxl" or at < 3]
    blocks += [widths[-1]] * level[-1]
    context = SIZES[family].context_dim
    shapes = {"image_proj.proj.weight": (4 * context, 64), "image_proj.proj.bias": (4 * context,)}
    shapes |= {"image_proj.norm.weight": (context,), "image_proj.norm.bias": (context,)}
    for number, width in enumerate(blocks):
        shapes |= {f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight": (width, context) for part in "kv"}
    generator = torch.Generator().manual_seed(7)
    save_file({key: make_checkpoint.random_tensor(key, shape, generator) for key, shape in shapes.items()}, path)


def write_pack(base: pathlib.Path) -> None:
    """Put the packs of this module and of :mod:`pack_faces` into the base directory *base*."""
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / "stand_in_faces.py").write_text(pack_faces.PACK, encoding="utf-8")
    (base / "custom_nodes" / "random_conditioning.py").write_text(PACK, encoding="utf-8")


def _write_gguf(models: pathlib.Path) -> None:
    gguf = importlib.import_module("gguf")
    writer = gguf.GGUFWriter(models / "unet" / "small-sd15.gguf", "sd1")
    kinds = gguf.GGMLQuantizationType
    for name, tensor in load_file(models / "diffusion_models" / "small-sd15.safetensors").items():
        kind = kinds.F32 if tensor.ndim != 2 else kinds.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
