"""Small networks and autoencoders of Cosmos 1 with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors, random_weight

WIDE = {f"rope_{axis}_extrapolation_ratio": 2.0 for axis in "hwt"}  # as with 14 billion weights
BOTH_HALVES = {"encoder": (1, 2, 4, 4), "decoder": (4, 4, 4, 2)}  # channels from level to level


def first_cosmos_config(*, width: int = 256, depth: int = 2, context: int = 32, channels: int = 16, lora: int = 16, side: int = 12) -> dict:
    """The ``unet_config`` of a small network; heads have their 128 channels, and there are positions for *side* cells along each axis."""
    first = "blocks.block0.blocks"
    return config_of(
        {
            "x_embedder.proj.1.weight": (width, (channels + 1) * 4),
            f"{first}.0.block.attn.to_q.0.weight": (width, width),
            f"{first}.0.block.attn.to_q.1.weight": (128,),
            f"{first}.1.block.attn.to_k.0.weight": (width, context),
            f"{first}.0.adaLN_modulation.1.weight": (lora, width),
            **{f"extra_pos_embedder.pos_emb_{axis}": (side, width) for axis in "hwt"},
            **{f"blocks.block{number}.": () for number in range(depth)},
        }
    )


def first_cosmos_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small network."""
    return random_tensors(first_cosmos_config(**sizes), seed, dtype)


def first_cosmos_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, prefix: str = "net.", **sizes) -> str:
    """*path*, after such a network was written there, with what published files have besides."""
    tensors = first_cosmos_tensors(seed, dtype, **sizes) | {"pos_embedder.seq": torch.arange(12.0), "logvar.1.weight": torch.zeros(1, 4)}
    save_file({prefix + name: value for name, value in tensors.items()}, path)
    return str(path)


def cosmos_vae_tensors(seed: int = 0, *, width: int = 8) -> dict[str, torch.Tensor]:
    """A small autoencoder, with *width* channels in the encoder at full resolution."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name, inner, outer, *kernel):
        shapes[f"{name}.conv3d.weight"], shapes[f"{name}.conv3d.bias"] = (outer, inner, *kernel), (outer,)

    def norm(name, count):
        shapes[f"{name}.norm.weight"] = shapes[f"{name}.norm.bias"] = (count,)

    def two(name, inner, outer):
        conv(f"{name}.0", inner, outer, 1, 3, 3)
        conv(f"{name}.1", outer, outer, 3, 1, 1)

    def block(name, inner, outer):
        norm(f"{name}.norm1", inner)
        two(f"{name}.conv1", inner, outer)
        norm(f"{name}.norm2", outer)
        two(f"{name}.conv2", outer, outer)
        if inner != outer:
            conv(f"{name}.nin_shortcut", inner, outer, 1, 1, 1)

    def half(name, colours_in, colours_out):
        counts = [step * width for step in BOTH_HALVES[name]]
        stack, sampling, kernels, blocks = ("down", "downsample", ((1, 3, 3), (3, 1, 1)), 2)
        middle = counts[-1]
        if name == "decoder":
            stack, sampling, kernels, blocks = ("up", "upsample", ((3, 1, 1), (1, 3, 3)), 3)
            middle = counts[0]
        two(f"{name}.conv_in", colours_in, counts[0])
        for number, (inner, outer) in enumerate(zip(counts, counts[1:])):
            level = number if name == "encoder" else 2 - number
            for part in range(blocks):
                block(f"{name}.{stack}.{level}.block.{part}", inner if part == 0 else outer, outer)
            if level == (0 if name == "encoder" else 1):  # the others keep frames and sides as they are
                for part, kernel in enumerate((*kernels, (1, 1, 1)), 1):
                    conv(f"{name}.{stack}.{level}.{sampling}.conv{part}", outer, outer, *kernel)
        for part in (1, 2):
            block(f"{name}.mid.block_{part}", middle, middle)
        for part in (0, 1):
            norm(f"{name}.mid.attn_1.{part}.norm", middle)
            for layer in ("q", "k", "v", "proj_out"):
                conv(f"{name}.mid.attn_1.{part}.{layer}", middle, middle, 1, 1, 1)
        norm(f"{name}.norm_out", counts[-1])
        two(f"{name}.conv_out", counts[-1], colours_out)

    half("encoder", 192, 16)
    half("decoder", 16, 192)
    for name in ("quant_conv", "post_quant_conv"):
        conv(name, 16, 16, 1, 1, 1)
    tensors = {name: random_weight(name, shape, generator) for name, shape in shapes.items()}
    tensors |= {"latent_mean": torch.randn(256, generator=generator) * 0.1, "latent_std": torch.rand(256, generator=generator) + 0.5}
    return tensors | {f"{name}.wavelets": torch.full((2,), 0.5**0.5) for name in ("encoder.patcher3d", "decoder.unpatcher3d")}


def cosmos_vae_file(path, seed: int = 0, **sizes) -> str:
    """*path*, after such an autoencoder was written there."""
    save_file(cosmos_vae_tensors(seed, **sizes), path)
    return str(path)
