"""Write a checkpoint with seeded random weights in the published layout of SD 1.5, SDXL or SDXL Refiner, or parts of one.

    python benchmarks/make_checkpoint.py OUT.safetensors --family sd15 [--seed 0] [--dtype fp16] [--shrink 5] [--only unet]

Weights of two and more dimensions are normal, scaled by fan-in ** -0.5; norm scales are 1, biases normal with deviation 0.02. The
file is written tensor by tensor, so memory stays at the size of the largest. ``--shrink N`` divides widths by N (all by the same
factor; the channels per head where a family fixes them too) and cuts depth, so that every code path stays.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.family_settings import METADATA_KEY
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import clip_layout, open_clip_layout, unet_layout, vae_layout
from comfy.families.sd_unet_config import UNetConfig

Shape = tuple[int, ...]
DTYPES = {"fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16), "fp32": ("F32", torch.float32)}
PARTS = ("unet", "clip", "vae")

_XL = UNetConfig(4, 4, 320, (1, 2, 4), (2, 2, 2), (0, 0, 2, 2, 10, 10), (0, 0, 0, 2, 2, 2, 10, 10, 10), 10, 2048, True, 2816, -1, 64)
UNETS = {
    "sd15": UNetConfig(4, 4, 320, (1, 2, 4, 4), (2,) * 4, (1,) * 6 + (0, 0), (1,) * 9 + (0,) * 3, 1, 768, False, None, 8, -1),
    "sdxl": _XL,
    "sdxl-light": dataclasses.replace(_XL, depths=(0, 0, 1, 1, 2, 2), output_depths=(0, 0, 0, 1, 1, 1, 2, 2, 2), middle_depth=2),
    "sdxl-refiner": UNetConfig(
        4, 4, 384, (1, 2, 4, 4), (2,) * 4, (0, 0, 4, 4, 4, 4, 0, 0), (0,) * 3 + (4,) * 6 + (0,) * 3, 4, 1280, True, 2560, -1, 64
    ),
}
CLIP_L = ClipTextConfig(49408, 77, 768, 3072, 12, 12, "quick_gelu", 0)
CLIP_G = ClipTextConfig(49408, 77, 1280, 5120, 32, 20, "gelu", 1280)
VAE = KlVaeConfig(3, 4, (128, 256, 512, 512), 2, True)


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """The sizes of everything in one checkpoint; an absent text model is None."""

    unet: UNetConfig
    vae: KlVaeConfig
    clip_l: ClipTextConfig | None
    clip_g: ClipTextConfig | None

    def metadata(self) -> dict[str, str]:
        """The header entry that says what shapes cannot."""
        unet = {"num_heads": self.unet.num_heads} if self.unet.num_heads > 0 else {"num_head_channels": self.unet.num_head_channels}
        settings: dict[str, object] = {"unet": unet}
        for name, config in (("clip_l", self.clip_l), ("clip_g", self.clip_g)):
            if config is not None:
                settings[name] = {"num_attention_heads": config.num_heads, "hidden_act": config.hidden_act}
        return {METADATA_KEY: json.dumps(settings)}


def family(name: str, shrink: int = 1) -> Family:
    """The family *name* with widths divided by *shrink*. Raises ``ValueError`` when the result is not a multiple of 32."""
    clip_l = None if name == "sdxl-refiner" else CLIP_L
    clip_g = None if name == "sd15" else CLIP_G
    if shrink == 1:
        return Family(UNETS[name], VAE, clip_l, clip_g)
    full = UNETS[name]
    width = full.model_channels // shrink
    if width % 32:
        raise ValueError(f"{full.model_channels} / {shrink} is not a multiple of 32, which the norm groups need")
    small_l = None if clip_l is None else dataclasses.replace(clip_l, hidden_size=64, intermediate_size=128, num_layers=3, num_heads=2)
    small_g = (
        None
        if clip_g is None
        else dataclasses.replace(clip_g, hidden_size=96, intermediate_size=192, num_layers=4, num_heads=3, projection=96)
    )
    context = sum(config.hidden_size for config in (small_l, small_g) if config is not None)
    sizes = 0 if full.adm_in_channels is None else full.adm_in_channels - CLIP_G.hidden_size
    unet = dataclasses.replace(
        full,
        model_channels=width,
        context_dim=context,
        adm_in_channels=None if small_g is None else sizes + small_g.hidden_size,
        depths=_shallow(full.depths),
        output_depths=_shallow(full.output_depths),
        middle_depth=min(2, full.middle_depth),
        num_head_channels=full.num_head_channels if full.num_heads > 0 else 32,
    )
    return Family(unet, dataclasses.replace(VAE, channels=(32, 64, 64, 64)), small_l, small_g)


def _shallow(depths: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(2, depth) for depth in depths)


def checkpoint_layout(sizes: Family, parts: Sequence[str] = PARTS) -> dict[str, Shape]:
    """Every tensor's name in a checkpoint and its shape."""
    tensors: dict[str, Shape] = {}
    if "unet" in parts:
        tensors |= _below("model.diffusion_model.", unet_layout(sizes.unet))
    if "clip" in parts and sizes.clip_g is None and sizes.clip_l is not None:
        tensors |= _below("cond_stage_model.transformer.", clip_layout(sizes.clip_l))
    elif "clip" in parts and sizes.clip_g is not None:
        if sizes.clip_l is not None:
            tensors |= _below("conditioner.embedders.0.transformer.", clip_layout(sizes.clip_l))
        number = 0 if sizes.clip_l is None else 1
        tensors |= _below(f"conditioner.embedders.{number}.model.", open_clip_layout(sizes.clip_g))
    if "vae" in parts:
        tensors |= _below("first_stage_model.", vae_layout(sizes.vae))
    return tensors


def _below(prefix: str, tensors: Mapping[str, Shape]) -> dict[str, Shape]:
    return {prefix + key: shape for key, shape in tensors.items()}


def random_tensor(key: str, shape: Shape, generator: torch.Generator, gain: float = 1.0) -> torch.Tensor:
    """The float32 weight *key*; *gain* scales the matrices."""
    if len(shape) >= 2:
        scale = 0.02 if "embedding" in key else gain * math.prod(shape[1:]) ** -0.5
        return torch.randn(shape, generator=generator).mul_(scale)
    if key.endswith("weight"):
        return torch.ones(shape)
    return torch.randn(shape, generator=generator).mul_(0.02)


def write_checkpoint(
    path: str, layout: Mapping[str, Shape], seed: int = 0, dtype: str = "fp16", gain: float = 1.0, metadata: Mapping[str, str] | None = None
) -> int:
    """Write seeded weights of *layout* to *path*, one tensor in memory at a time; returns the file's size in bytes.

    The file appears under its name only when it is complete.
    """
    name, kept = DTYPES[dtype]
    header: dict[str, object] = {"__metadata__": dict(metadata or {})}
    position = 0
    for key, shape in layout.items():
        size = math.prod(shape) * kept.itemsize
        header[key] = {"dtype": name, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path + ".partial"
    with open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in _tensor_bytes(layout, seed, kept, gain):
            file.write(data)
    os.replace(partial, path)
    return 8 + len(text) + position


def _tensor_bytes(layout: Mapping[str, Shape], seed: int, dtype: torch.dtype, gain: float) -> Iterator[memoryview]:
    generator = torch.Generator().manual_seed(seed)
    for key, shape in layout.items():
        tensor = random_tensor(key, shape, generator, gain).to(dtype).contiguous()
        yield memoryview(tensor.view(-1).view(torch.uint8).numpy())


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--family", choices=sorted(UNETS), default="sd15")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp16")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--gain", type=float, default=1.0, help="scale of the matrices")
    parser.add_argument("--only", choices=PARTS, action="append", help="write just this part (repeatable)")
    given = parser.parse_args()
    sizes = family(given.family, given.shrink)
    layout = checkpoint_layout(sizes, given.only or PARTS)
    metadata = sizes.metadata() if given.shrink > 1 else {}
    size = write_checkpoint(given.out, layout, given.seed, given.dtype, given.gain, metadata)
    print(f"{given.out}: {len(layout)} tensors, {size} bytes")


if __name__ == "__main__":
    main()
