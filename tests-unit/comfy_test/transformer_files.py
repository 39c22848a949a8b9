"""Small files of transformer families with random weights in the published names."""

import functools
import math

import torch
from safetensors.torch import save_file

from comfy.dit.registry import read_transformer_config
from comfy.ldm.anima.lllite import AnimaLLLiteConditioning, AnimaLLLiteModule
from comfy.ldm.flux.siglip_style import SigLIPMultiFeatProjModel
from comfy.ldm.lumina.controlnet import ZImage_Control
from comfy.ldm.qwen_image.blockwise import QwenImageBlockWiseControlNet
from comfy.ops import disable_weight_init
from comfy.supported_models import models

STYLE_SIZES = {"siglip_token_nums": 9, "style_token_nums": 4, "siglip_token_dims": 24, "hidden_size": 256}
Z_IMAGE_SIZES = {"dim": 256, "n_heads": 2, "n_kv_heads": 2, "ffn_dim_multiplier": 320.5 / 256, "multiple_of": 1}
DIFFUSERS = {
    ".attention.out.": ".attention.to_out.0.",
    ".attention.q_norm.": ".attention.norm_q.",
    ".attention.k_norm.": ".attention.norm_k.",
}


def random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A float32 value: matrices normal by fan-in, scales around one, biases small."""
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5
    values = torch.randn(shape, generator=generator) * 0.1
    return 1 + values if name.endswith(("scale", "weight")) else values


def network_of(config: dict):
    """The network of the ``unet_config`` *config*, without values."""
    kind = next(one for one in models if one.matches(config))
    return kind(config).get_model({}, device=torch.device("cpu")).diffusion_model


def random_tensors(config: dict, seed: int = 0, dtype: torch.dtype = torch.float32, file_name=lambda name: name) -> dict[str, torch.Tensor]:
    """Values for all parameters of that network, under *file_name* of theirs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {file_name(name): tuple(value.shape) for name, value in network_of(config).named_parameters()}
    return {name: random_weight(name, shape, generator).to(dtype) for name, shape in shapes.items()}


def flux_config(
    *, in_channels: int = 16, guidance: bool = True, width: int = 256, depth: int = 2, single: int = 3, context: int = 64, vector: int = 32
) -> dict:
    """The ``unet_config`` of a small Flux.1; heads have their 128 channels."""
    shapes = {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (width, in_channels * 4),
        "txt_in.weight": (width, context),
        "vector_in.in_layer.weight": (width, vector),
        **({"guidance_in.in_layer.weight": (width, 256)} if guidance else {}),
        **{f"double_blocks.{number}.": () for number in range(depth)},
        **{f"single_blocks.{number}.": () for number in range(single)},
    }
    config = read_transformer_config(shapes)
    assert config is not None
    return config


def flux_file_name(name: str) -> str:
    """The published name of a parameter: the authors say ``scale`` for a norm's weight."""
    return f"{name.removesuffix('.weight')}.scale" if name.endswith("_norm.weight") else name


def flux_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Flux.1 in the authors' names."""
    return random_tensors(flux_config(**sizes), seed, dtype, flux_file_name)


@functools.cache
def _flux_file(path: str, seed: int, dtype: torch.dtype, prefix: str, sizes: tuple) -> str:
    save_file({prefix + name: value for name, value in flux_tensors(seed, dtype, **dict(sizes)).items()}, path)
    return path


def flux_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, prefix: str = "", **sizes) -> str:
    """*path*, after a small Flux.1 was written there."""
    return _flux_file(str(path), seed, dtype, prefix, tuple(sorted(sizes.items())))


def config_of(shapes: dict) -> dict:
    """The ``unet_config`` of a file with tensors of *shapes*."""
    config = read_transformer_config(shapes)
    assert config is not None
    return config


def qwen_image_config(*, width: int = 64, depth: int = 2, context: int = 48, layered: bool = False, at_time_zero: bool = False) -> dict:
    """The ``unet_config`` of a small Qwen-Image, whose heads have 32 channels."""
    shapes = {
        "txt_norm.weight": (context,),
        "img_in.weight": (width, 64),
        "proj_out.weight": (64, width),
        "transformer_blocks.0.attn.norm_added_q.weight": (32,),
        **{f"transformer_blocks.{number}.": () for number in range(depth)},
        **({"time_text_embed.addition_t_embedding.weight": (2, width)} if layered else {}),
        **({"__index_timestep_zero__": (0,)} if at_time_zero else {}),
    }
    return config_of(shapes)


def qwen_image_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Qwen-Image in the published names."""
    mark = {"__index_timestep_zero__": torch.tensor([])} if sizes.get("at_time_zero") else {}
    return random_tensors(qwen_image_config(**sizes), seed, dtype) | mark


def z_image_config(*, depth: int = 2, context: int = 64, inner: int = 320, omni: bool = False) -> dict:
    """The ``unet_config`` of a small Z-Image of 256 channels, the least that its time embedding fits."""
    shapes = {
        "cap_embedder.1.weight": (256, context),
        "x_embedder.weight": (256, 64),
        "cap_pad_token": (1, 256),
        "noise_refiner.0.attention.k_norm.weight": (128,),
        "noise_refiner.0.attention.qkv.weight": (768, 256),
        "noise_refiner.0.feed_forward.w1.weight": (inner, 256),
        "noise_refiner.0.adaLN_modulation.0.weight": (1024, 256),
        "noise_refiner.1.": (),
        **{f"layers.{number}.": () for number in range(depth)},
        **({"siglip_embedder.0.weight": (40,)} if omni else {}),
    }
    return config_of(shapes)


def lumina2_config(*, width: int = 96, depth: int = 2, context: int = 64, inner: int = 160) -> dict:
    """The ``unet_config`` of a small Lumina Image 2, whose heads have 24 channels and share keys by twos."""
    shapes = {
        "cap_embedder.1.weight": (width, context),
        "x_embedder.weight": (width, 64),
        "noise_refiner.0.attention.k_norm.weight": (24,),
        "noise_refiner.0.attention.qkv.weight": (width * 2, width),
        "noise_refiner.0.feed_forward.w1.weight": (inner, width),
        "noise_refiner.0.adaLN_modulation.1.weight": (width * 4, width),
        "noise_refiner.1.": (),
        **{f"layers.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def lumina_tensors(config: dict, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A small Z-Image or Lumina Image 2 in the published names."""
    return random_tensors(config, seed, dtype)


def qwen_text_tensors(
    seed: int = 0, *, eyes: bool = True, normalised: bool = False, vocabulary: int = 400, width: int = 64, layers: int = 3, keys: int = 1
) -> dict[str, torch.Tensor]:
    """A small Qwen2.5-VL (*eyes*), Qwen 2.5, or Qwen 3 (*normalised*) in the published names, of two heads with so many *keys*."""
    from comfy.ops import disable_weight_init
    from comfy.text.qwen.network import QwenTextModel
    from comfy.text.qwen.sizes import EyesConfig, QwenTextConfig

    sight = EyesConfig(hidden_size=160, intermediate_size=96, depth=3, output_size=width, patch_size=14, frames=2) if eyes else None
    heads = {"num_heads": 2, "num_key_heads": keys, "head_width": 128}
    config = QwenTextConfig(vocabulary, width, 96, layers, **heads, normalised=normalised, eyes=sight)
    generator = torch.Generator().manual_seed(seed)
    parameters = QwenTextModel(config, disable_weight_init).named_parameters()
    return {name: random_weight(name, tuple(value.shape), generator) for name, value in parameters}


def qwen3_vl_tensors(
    seed: int = 0, *, large: bool = False, vocabulary: int = 400, width: int = 64, layers: int = 3, published: bool = True
) -> dict[str, torch.Tensor]:
    """A small Qwen3-VL of two heads with one key, in transformers' names (*published*) or ComfyUI's; *large* ones have deeper eyes."""
    from comfy.text.qwen.sizes import LARGE_EYES, LARGE_TOLD, DeepEyesConfig, QwenTextConfig
    from comfy.text.qwen.vision3 import Qwen3VLTextModel

    told = LARGE_TOLD if large else (0, 1, 2)
    eyes = DeepEyesConfig(64, 48, LARGE_EYES if large else 4, width, patch_size=16, frames=2, positions=16, told=told)
    config = QwenTextConfig(vocabulary, width, 96, layers, num_heads=2, num_key_heads=1, head_width=128, normalised=True, eyes=eyes)
    tensors = _tensors(Qwen3VLTextModel(config, disable_weight_init), seed)
    if not published:
        return tensors
    theirs = {"model.": "model.language_model.", "visual.": "model.visual."}
    return {f"{theirs[name.partition('.')[0] + '.']}{name.partition('.')[2]}": value for name, value in tensors.items()}


def qwen35_tensors(seed=0, *, eyes=True, vocabulary=400, width=64, layers=4, published=True):
    """A small Qwen 3.5, of three layers with a state and one that attends, in transformers' names (*published*) or ComfyUI's."""
    from comfy.text.qwen.hybrid import FULL, LINEAR, HybridTextConfig, HybridTextModel
    from comfy.text.qwen.sizes import DeepEyesConfig

    sight = DeepEyesConfig(64, 48, 3, width, patch_size=16, frames=2, positions=16, told=()) if eyes else None
    kinds = tuple(FULL if number % 4 == 3 else LINEAR for number in range(layers))
    states = {"kinds": kinds, "value_heads": 4, "state_heads": 2, "state_width": 16, "kernel": 4}
    config = HybridTextConfig(vocabulary, width, 96, layers, 2, 1, head_width=256, eyes=sight, **states)
    tensors = _tensors(HybridTextModel(config, disable_weight_init), seed)
    if not published:
        return tensors
    theirs = {"model.": "model.language_model.", "visual.": "model.visual."}
    return {f"{theirs[name.partition('.')[0] + '.']}{name.partition('.')[2]}": value for name, value in tensors.items()}


def _tensors(network, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, tuple(value.shape), generator) for name, value in network.named_parameters()}


def blockwise_tensors(seed=0, blocks=2, width=64, mask=False):
    """DiffSynth's ControlNet for the small Qwen-Image."""
    return _tensors(QwenImageBlockWiseControlNet(blocks, additional_in_dim=4 * mask, dim=width, operations=disable_weight_init), seed)


def qwen_control_tensors(seed=0, mask=False, blocks=2, **sizes):
    """InstantX's ControlNet for the small Qwen-Image; *mask*: one that fills in."""
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel

    config = qwen_image_config(depth=blocks, **sizes)
    return _tensors(QwenImageControlNetModel(4 * mask, **config, operations=disable_weight_init), seed)


def qwen_fun_tensors(seed=0, blocks=5, width=64):
    """Alibaba's Fun ControlNet for the small Qwen-Image."""
    from comfy.ldm.qwen_image.controlnet import QwenImageFunControlNetModel

    return _tensors(QwenImageFunControlNetModel(132, width, width // 32, 32, blocks, operations=disable_weight_init), seed)


def style_tensors(seed=0):
    """USO's projector for the small Flux."""
    return {
        f"feature_embedder.{name}": value
        for name, value in _tensors(SigLIPMultiFeatProjModel(**STYLE_SIZES, operations=disable_weight_init), seed).items()
    }


def lllite_tensors(seed=0, blocks=2, width=256, mask=False, far=True):
    """An LLLite for the small Cosmos-Predict2: of each kind of layer in its first block, of one in each other; *far*: looking far."""
    conditioning = AnimaLLLiteConditioning(3 + mask, 16, 24, 1, (1, 2) if far else (), operations=disable_weight_init)
    layers = ["0_self_attn_q_proj", "0_self_attn_k_proj", "0_self_attn_v_proj", "0_cross_attn_q_proj", "0_mlp_layer1"]
    tensors = {f"lllite_conditioning1.{name}": value for name, value in _tensors(conditioning, seed).items()}
    for number, layer in enumerate([*layers, *(f"{block}_mlp_layer1" for block in range(1, blocks))], seed + 1):
        module = AnimaLLLiteModule(width, 24, 12, operations=disable_weight_init)
        tensors |= {f"lllite_dit_blocks_{layer}.{name}": value for name, value in _tensors(module, number).items()}
    return tensors


def fun_tensors(seed=0, blocks=6, untrained=False):
    """A Fun ControlNet for the small Z-Image: of 6 blocks, or the later ones of 3 and 15; *untrained*: without refining blocks' results."""
    later = blocks != 6
    network = ZImage_Control(
        **Z_IMAGE_SIZES, n_control_layers=blocks, additional_in_dim=17 * later, refiner_control=later, operations=disable_weight_init
    )
    tensors = {}
    for name, value in _tensors(network, seed).items():
        if untrained and name.startswith("control_noise_refiner") and ".after_proj." in name:
            value = torch.zeros_like(value)
        if name.endswith(".attention.qkv.weight"):
            base = name.removesuffix("qkv.weight")
            tensors |= {f"{base}to_{letter}.weight": part.clone() for letter, part in zip("qkv", value.chunk(3))}
            continue
        for ours, theirs in DIFFUSERS.items():
            name = name.replace(ours, theirs)
        tensors[name] = value
    return tensors


class Autoencoder:
    """Encodes each 8 x 8 pixels as 16 numbers, for *latent_dim* 3 with a dimension of frames."""

    latent_channels, source_name = 16, "vae.safetensors"

    def __init__(self, latent_dim):
        self.latent_dim = latent_dim

    def spacial_compression_encode(self):
        return 8

    def encode(self, pictures):
        grid = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8)
        latent = torch.cat([torch.sin(grid * (number + 2)) for number in range(6)], dim=1)[:, :16]
        return latent.unsqueeze(2) if self.latent_dim == 3 else latent
