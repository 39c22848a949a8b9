"""LoRA files for small Flux models in the ways that trainers name their keys."""

import torch
from transformer_files import flux_config

from comfy.dit.flux import diffusers_places

RANK = 4


def _numbers(generator, *shape):
    return torch.randn(shape, generator=generator) * 0.1


def _pair(generator, shape, up="lora_up.weight", down="lora_down.weight"):
    return {up: _numbers(generator, shape[0], RANK), down: _numbers(generator, RANK, shape[1])}


def published_layers() -> dict[str, tuple[int, int]]:
    """Layers of a small Flux that LoRA files change, by published name, and their shapes."""
    return {
        "double_blocks.0.img_attn.qkv": (768, 256),
        "double_blocks.1.txt_attn.proj": (256, 256),
        "double_blocks.1.img_mlp.0": (1024, 256),
        "single_blocks.2.linear1": (1792, 256),
        "single_blocks.0.linear2": (256, 1280),
        "single_blocks.0.modulation.lin": (768, 256),
    }


def kohya(seed=0):
    """As kohya's scripts name them, with alpha."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, shape in published_layers().items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        lora |= {f"{flat}.{leaf}": value for leaf, value in _pair(generator, shape).items()} | {f"{flat}.alpha": torch.tensor(2.0)}
    return lora


def plain(seed=1):
    """As ai-toolkit and others name them: the weights' names."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, shape in published_layers().items():
        lora |= {
            f"diffusion_model.{name}.{leaf}": value for leaf, value in _pair(generator, shape, "lora_B.weight", "lora_A.weight").items()
        }
    return lora


def diffusers(seed=2, prefix="transformer.", flat=False, middle=".", up="lora_B.weight", down="lora_A.weight", every=3):
    """In diffusers' names, of which every third layer has a change (attention slices and the swapped last layer among them)."""
    generator = torch.Generator().manual_seed(seed)
    config = flux_config()
    shapes = {"linear1": (1792, 256), "qkv": (768, 256), "linear2": (256, 1280), "0": (1024, 256), "2": (256, 1024), "proj": (256, 256)}
    lora = {}
    names = [
        name
        for name in diffusers_places(config)
        if name.endswith(".weight") and not name.endswith(("linear_in.weight", "linear_out.weight"))
    ]
    for number, name in enumerate(names):
        place = diffusers_places(config)[name]
        shape = shapes.get(place.key.split(".")[-2])
        if place.swapped:
            shape = (512, 256)
        if shape is None or "to_qkv_mlp" in name or name.endswith("attn.to_out.weight") or (number % every and not place.swapped):
            continue
        rows = place.length or shape[0]
        bare = name.removesuffix(".weight")
        bare = prefix + (bare.replace(".", "_") if flat else bare)
        lora |= {f"{bare}{middle}{leaf}": value for leaf, value in _pair(generator, (rows, shape[1]), up, down).items()}
    return lora


def onetrainer(seed=3):
    """As OneTrainer names diffusers' layers."""
    return diffusers(seed, "lora_transformer_", flat=True, up="lora_up.weight", down="lora_down.weight")


def lycoris(seed=4):
    """As SimpleTuner's LyCORIS names them: Kronecker products."""
    generator = torch.Generator().manual_seed(seed)
    name = "lycoris_single_transformer_blocks_1_attn_to_k"
    other = "lycoris_transformer_blocks_0_ff_linear_in"
    return {
        f"{name}.lokr_w1": _numbers(generator, 16, 16),
        f"{name}.lokr_w2": _numbers(generator, 16, 16),
        f"{name}.alpha": torch.tensor(1.0),
        f"{other}.lokr_w1": _numbers(generator, 32, 16),
        f"{other}.lokr_w2": _numbers(generator, 32, 16),
        f"{other}.alpha": torch.tensor(1.0),
    }


def control(seed=5):
    """As Black Forest Labs' LoRAs for edges and depth: a wider first layer, norms, biases."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, shape in {"img_in": (256, 128), **published_layers()}.items():
        lora |= {f"{name}.{leaf}": value for leaf, value in _pair(generator, shape, "lora_B.weight", "lora_A.weight").items()}
        lora[f"{name}.lora_B.bias"] = _numbers(generator, shape[0])
    for block in ("double_blocks.0.img_attn", "double_blocks.1.txt_attn", "single_blocks.0"):
        lora |= {f"{block}.norm.{kind}_norm.scale": 1 + _numbers(generator, 128) for kind in ("query", "key")}
    return lora


def xlabs(seed=6):
    """As XLabs' trainer names them."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    layers = {"qkv_lora1": (768, 256), "qkv_lora2": (768, 256), "proj_lora1": (256, 256), "proj_lora2": (256, 256)}
    for name, shape in layers.items():
        for leaf, value in _pair(generator, shape, "up.weight", "down.weight").items():
            lora[f"double_blocks.0.processor.{name}.{leaf}"] = value
    for name, shape in {"qkv_lora": (768, 256), "proj_lora": (256, 1280)}.items():
        for leaf, value in _pair(generator, shape, "up.weight", "down.weight").items():
            lora[f"single_blocks.1.processor.{name}.{leaf}"] = value
    return lora
