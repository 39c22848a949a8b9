"""Write a LoRA (kohya-style keys), a ControlNet (published layout) or an embedding with seeded random weights, fitting a family.

    python benchmarks/make_addons.py lora OUT.safetensors --family sd15 [--seed 1] [--rank 4] [--gain 0.5]
    python benchmarks/make_addons.py controlnet OUT.safetensors --family sd15 [--seed 2]
    python benchmarks/make_addons.py embedding OUT.safetensors --family sd15 [--seed 3]

The product of a LoRA's factors has the scale of the weight that it changes times ``--gain``. A ControlNet's output convolutions, zero
in a network that nobody trained, are random too, so that it does something. An embedding holds three tokens.
"""

import argparse
import math
import pathlib
import re
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from make_checkpoint import DTYPES, UNETS, Family, Shape, checkpoint_layout, family, write_checkpoint

HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
_TRANSFORMER_LAYER = re.compile(r"(?:attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2)|proj_in|proj_out)\.weight$")
_TEXT_LAYER = re.compile(r"(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12])\.weight$")
_OPEN_CLIP_LAYER = re.compile(r"mlp\.c_(fc|proj)\.weight$|attn\.out_proj\.weight$")


def kohya_name(key: str, two_text_models: bool) -> str | None:
    """What kohya's trainer calls the weight *key* of a checkpoint; None for one that it does not train."""
    if key.startswith("model.diffusion_model.") and _TRANSFORMER_LAYER.search(key):
        place = key.removeprefix("model.diffusion_model.").removesuffix(".weight")
        return "lora_unet_" + (place if two_text_models else _diffusers_place(place)).replace(".", "_")
    first = re.match(r"(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.(text_model\.encoder\..*)\.weight$", key)
    if first and _TEXT_LAYER.search(key):
        return ("lora_te1_" if two_text_models else "lora_te_") + first[1].replace(".", "_")
    second = re.match(r"conditioner\.embedders\.1\.model\.transformer\.resblocks\.(\d+)\.(.*)\.weight$", key)
    if second and _OPEN_CLIP_LAYER.search(key):
        layer = {"mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2", "attn.out_proj": "self_attn_out_proj"}[second[2]]
        return f"lora_te2_text_model_encoder_layers_{second[1]}_{layer}"
    return None


def _diffusers_place(place: str) -> str:
    """diffusers' name of a transformer layer of SD 1.x, whose levels have two blocks each."""
    if place.startswith("middle_block.1."):
        return place.replace("middle_block.1", "mid_block.attentions.0")
    block, number, _, rest = place.split(".", 3)
    if block == "input_blocks":
        level, index = divmod(int(number) - 1, 3)
        return f"down_blocks.{level}.attentions.{index}.{rest}"
    level, index = divmod(int(number), 3)
    return f"up_blocks.{level}.attentions.{index}.{rest}"


def lora_tensors(sizes: Family, seed: int = 1, rank: int = 4, gain: float = 0.5) -> dict[str, torch.Tensor]:
    """Two float16 factors and an alpha of half the rank for every layer that kohya's trainer adapts."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in checkpoint_layout(sizes, ("unet", "clip")).items():
        name = kohya_name(key, sizes.clip_g is not None)
        if name is None:
            continue
        down = torch.randn((rank, *shape[1:]), generator=generator) * math.prod(shape[1:]) ** -0.5
        up = torch.randn((shape[0], rank) + (1,) * (len(shape) - 2), generator=generator) * gain * 2 * rank**-0.5
        tensors |= {f"{name}.lora_down.weight": down.half(), f"{name}.lora_up.weight": up.half(), f"{name}.alpha": torch.tensor(rank / 2)}
    return tensors


def controlnet_layout(sizes: Family) -> dict[str, Shape]:
    """Every tensor's name and shape in a single-file ControlNet for the UNet of *sizes*."""
    config = sizes.unet
    kept = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
    checkpoint = checkpoint_layout(sizes, ("unet",))
    plain = {key.removeprefix("model.diffusion_model."): shape for key, shape in checkpoint.items()}
    tensors = {key: shape for key, shape in plain.items() if key.startswith(kept)}
    widths = (3, *HINT_CHANNELS, config.model_channels)
    for index, (wide, narrow) in enumerate(zip(widths[1:], widths)):
        tensors[f"input_hint_block.{index * 2}.weight"] = (wide, narrow, 3, 3)
        tensors[f"input_hint_block.{index * 2}.bias"] = (wide,)
    skips = [config.model_channels]
    for level, width in enumerate(config.channels):
        skips += [width] * (config.num_res_blocks[level] + (level + 1 < len(config.channels)))
    for index, width in enumerate(skips):
        tensors |= {f"zero_convs.{index}.0.weight": (width, width, 1, 1), f"zero_convs.{index}.0.bias": (width,)}
    width = config.channels[-1]
    tensors |= {"middle_block_out.0.weight": (width, width, 1, 1), "middle_block_out.0.bias": (width,)}
    return {"control_model." + key: shape for key, shape in tensors.items()}


def embedding_tensors(sizes: Family, seed: int = 3, tokens: int = 3) -> dict[str, torch.Tensor]:
    """*tokens* vectors for each text model, at the scale of make_checkpoint's token embeddings, named as trainers of each family do."""
    generator = torch.Generator().manual_seed(seed)
    models = {name: config for name, config in (("clip_l", sizes.clip_l), ("clip_g", sizes.clip_g)) if config is not None}
    tensors = {name: torch.randn(tokens, config.hidden_size, generator=generator) * 0.02 for name, config in models.items()}
    return tensors if sizes.clip_g is not None else {"emb_params": tensors["clip_l"]}


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("lora", "controlnet", "embedding"))
    parser.add_argument("out")
    parser.add_argument("--family", choices=sorted(UNETS), default="sd15")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--gain", type=float, default=0.5)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp16")
    given = parser.parse_args()
    sizes = family(given.family, given.shrink)
    if given.kind in ("lora", "embedding"):
        lora = given.kind == "lora"
        tensors = lora_tensors(sizes, given.seed, given.rank, given.gain) if lora else embedding_tensors(sizes, given.seed)
        save_file(tensors, given.out)
        print(f"{given.out}: {len(tensors)} tensors")
    else:
        layout = controlnet_layout(sizes)
        size = write_checkpoint(given.out, layout, given.seed, given.dtype, metadata=sizes.metadata() if given.shrink > 1 else {})
        print(f"{given.out}: {len(layout)} tensors, {size} bytes")


if __name__ == "__main__":
    main()
