"""What InstantID and PuLID need, of random weights: a stand-in for face analysis, adapters in the published layout, a ControlNet."""

import dataclasses
import pathlib
import sys

import torch
from live_server import ROOT
from safetensors.torch import save_file

sys.path.insert(0, str(ROOT / "benchmarks"))

import make_addons  # noqa: E402
import make_checkpoint  # noqa: E402

TOKEN = 2048  # channels of SDXL's text tokens
DEPTH, DIM, QUERIES, FACE = 4, 1280, 16, 512  # of InstantID's resampler, as its pack builds it

PACK = '''"""A stand-in for the analysis of faces, and PuLID's attention with random weights."""

import types

import numpy
import nodes
import torch


class Faces:
    """Finds one face in any picture: five key points at fixed places, and an embedding that follows from the pixels."""

    def __init__(self):
        self.det_model = types.SimpleNamespace(input_size=None)
        self.calls = 0

    def get(self, image):
        """*image*: height x width x 3, uint8."""
        self.calls += 1
        height, width = image.shape[:2]
        rows = numpy.linspace(0, height, 9).astype(int)
        columns = numpy.linspace(0, width, 9).astype(int)
        pooled = [image[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].mean() / 255 for y in range(8) for x in range(8)]
        embedding = numpy.random.RandomState(0).randn(512, 64) @ (numpy.array(pooled) - 0.5)
        places = ((0.35, 0.4), (0.65, 0.4), (0.5, 0.55), (0.4, 0.7), (0.6, 0.7))
        kps = numpy.array([(x * width, y * height) for x, y in places], dtype=numpy.float32)
        return [{"bbox": (0, 0, width, height), "kps": kps, "embedding": embedding.astype(numpy.float32)}]


class StandInFaces:
    """What InstantID's node for face analysis gives."""

    RETURN_TYPES = ("FACEANALYSIS",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (Faces(),)


class PulidAttention:
    """The attention of the pack PuLID_ComfyUI for the blocks of SDXL *widths* (input 4/5, the deeper ones), with seeded tokens."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"model": ("MODEL",), "weight": ("FLOAT", {"default": 0.8}), "method": (["fidelity", "style", "neutral"],)},
            "optional": {"mask": ("MASK",)},
        }

    def patch(self, model, weight, method, mask=None):
        pack = nodes.NODE_CLASS_MAPPINGS["ApplyPulid"].apply_pulid.__globals__
        generator = torch.Generator().manual_seed(11)
        places = [("input", at, index, 128 if at < 6 else 256) for at in (4, 5, 7, 8) for index in range(2 if at < 6 else 10)]
        places += [("output", at, index, 256 if at < 3 else 128) for at in range(6) for index in range(10 if at < 3 else 2)]
        places += [("middle", 1, index, 256) for index in range(10)]
        weights = {
            f"{2 * number + 1}.to_{part}_ip.weight": torch.randn(place[3], 2048, generator=generator) * 2048**-0.5
            for number, place in enumerate(places)
            for part in "kv"
        }
        cond, uncond = (torch.randn(1, 8, 2048, generator=generator) for _ in range(2))
        sampling = model.get_model_object("model_sampling")
        given = {
            "pulid": types.SimpleNamespace(ip_layers=pack["To_KV"](weights)),
            "weight": weight,
            "cond": cond,
            "uncond": uncond,
            "sigma_start": sampling.percent_to_sigma(0.0),
            "sigma_end": sampling.percent_to_sigma(1.0),
            "ortho": method == "style",
            "ortho_v2": method == "fidelity",
            "mask": mask,
        }
        patched = model.clone()
        for number, (*place, _) in enumerate(places):
            pack["set_model_patch_replace"](patched, {**given, "module_key": str(2 * number + 1)}, tuple(place))
        return (patched,)


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (StandInFaces, PulidAttention)}
'''


def write_full_size(models: pathlib.Path) -> None:
    """Write into the folder *models* a diffusion model of SDXL's own size with adapter and ControlNet, 8.5 GB, under the same names."""
    (models / "diffusion_models").mkdir(parents=True)
    unet = make_checkpoint.UNETS["sdxl"]
    path = str(models / "diffusion_models" / "small-sdxl.safetensors")
    make_checkpoint.write_checkpoint(path, make_checkpoint.unet_layout(unet), seed=3, dtype="fp16")
    write_faces(models, unet, "fp16")


def write_faces(models: pathlib.Path, unet: make_checkpoint.UNetConfig, dtype: str = "fp32") -> None:
    """Write into the folder *models* an InstantID adapter and a ControlNet for the SDXL-shaped *unet*, both ``small-sdxl``."""
    for folder in ("instantid", "controlnet"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(10)
    layout = {**resampler_layout(), **attention_layout(unet.model_channels)}
    tensors = {key: make_checkpoint.random_tensor(key, shape, generator).half() for key, shape in layout.items()}
    save_file(tensors, models / "instantid" / "small-sdxl.safetensors")
    family = dataclasses.replace(make_checkpoint.family("sdxl", 1), unet=unet)
    path = str(models / "controlnet" / "small-sdxl.safetensors")
    make_checkpoint.write_checkpoint(path, make_addons.controlnet_layout(family), seed=2, dtype=dtype)


def resampler_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of what turns a face's embedding into tokens (a perceiver resampler, arXiv:2401.07519)."""
    shapes: dict[str, tuple[int, ...]] = {"latents": (1, QUERIES, DIM), "proj_in.weight": (DIM, FACE), "proj_in.bias": (DIM,)}
    shapes |= {"proj_out.weight": (TOKEN, DIM), "proj_out.bias": (TOKEN,), "norm_out.weight": (TOKEN,), "norm_out.bias": (TOKEN,)}
    for layer in range(DEPTH):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (DIM,) for part in ("weight", "bias")}
        shapes |= {f"layers.{layer}.0.to_q.weight": (DIM, DIM), f"layers.{layer}.0.to_kv.weight": (2 * DIM, DIM)}
        shapes |= {f"layers.{layer}.0.to_out.weight": (DIM, DIM)}
        shapes |= {f"layers.{layer}.1.1.weight": (4 * DIM, DIM), f"layers.{layer}.1.3.weight": (DIM, 4 * DIM)}
    return {f"image_proj.{key}": shape for key, shape in shapes.items()}


def attention_layout(width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the keys and values of SDXL's 70 cross-attentions at *width* channels, numbered as published ones are."""
    widths = [2 * width] * 4 + [4 * width] * 20 + [4 * width] * 30 + [2 * width] * 6 + [4 * width] * 10
    return {f"ip_adapter.{2 * at + 1}.to_{part}_ip.weight": (wide, TOKEN) for at, wide in enumerate(widths) for part in "kv"}
