"""Small networks of HunyuanVideo 1 and 1.5 with random weights in the authors' names, and what belongs to them."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors, random_weight

SEEN, WRITTEN = 1152, 1472
POOLED = 768  # of CLIP-L, whose vector HunyuanVideo 1 takes


def hunyuan_config(*, channels: int = 65, width: int = 128, depth: int = 2, context: int = 48, meanflow: bool = False) -> dict:
    """The ``unet_config`` of a small network, whose one head has 128 channels; *meanflow*: of one that goes from one time to another."""
    shapes = {
        "txt_in.individual_token_refiner.blocks.0.norm1.weight": (width,),
        "txt_in.input_embedder.weight": (width, context),
        "img_in.proj.weight": (width, channels, 1, 1, 1),
        "final_layer.linear.weight": (32, width),
        "vision_in.proj.0.weight": (SEEN,),
        "byt5_in.fc1.weight": (2048, WRITTEN),
        "cond_type_embedding.weight": (3, width),
        **({"time_r_in.mlp.0.weight": (width, 256)} if meanflow else {}),
        **{f"double_blocks.{number}.": () for number in range(depth)},
    }
    return config_of(shapes)


def first_config(*, channels: int = 16, width: int = 128, depth: int = 2, single: int = 2, context: int = 48, pooled: int = POOLED) -> dict:
    """The ``unet_config`` of a small HunyuanVideo 1, whose one head has 128 channels."""
    shapes = {
        "txt_in.individual_token_refiner.blocks.0.norm1.weight": (width,),
        "txt_in.input_embedder.weight": (width, context),
        "img_in.proj.weight": (width, channels, 1, 2, 2),
        "final_layer.linear.weight": (64, width),
        "vector_in.in_layer.weight": (width, pooled),
        "guidance_in.mlp.0.weight": (width, 256),
        **{f"double_blocks.{number}.": () for number in range(depth)},
        **{f"single_blocks.{number}.": () for number in range(single)},
    }
    return config_of(shapes)


def first_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small HunyuanVideo 1 in the authors' names."""
    return random_tensors(first_config(**sizes), seed, dtype, authors_name)


def first_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> str:
    """*path*, after such a network was written there."""
    save_file(first_tensors(seed, dtype, **sizes), path)
    return str(path)


def authors_name(name: str) -> str:
    """What the authors' files call the parameter *name*."""
    for own, theirs in (
        ("txt_in.t_embedder.in_layer.", "txt_in.t_embedder.mlp.0."),
        ("txt_in.t_embedder.out_layer.", "txt_in.t_embedder.mlp.2."),
        ("txt_in.c_embedder.in_layer.", "txt_in.c_embedder.linear_1."),
        ("txt_in.c_embedder.out_layer.", "txt_in.c_embedder.linear_2."),
        ("_in.in_layer.", "_in.mlp.0."),
        ("_in.out_layer.", "_in.mlp.2."),
        ("_mod.lin.", "_mod.linear."),
        ("_attn.qkv.", "_attn_qkv."),
        ("_attn.proj.", "_attn_proj."),
        ("_attn.norm.query_norm.", "_attn_q_norm."),
        ("_attn.norm.key_norm.", "_attn_k_norm."),
        (".norm.query_norm.", ".q_norm."),
        (".norm.key_norm.", ".k_norm."),
        (".modulation.lin.", ".modulation.linear."),
    ):
        name = name.replace(own, theirs)
    return name.replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.") if "_in.mlp." not in name and "embedder" not in name else name


def hunyuan_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small network in the authors' names."""
    return random_tensors(hunyuan_config(**sizes), seed, dtype, authors_name)


def hunyuan_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> str:
    """*path*, after such a network was written there."""
    save_file(hunyuan_tensors(seed, dtype, **sizes), path)
    return str(path)


def hunyuan_vae_layout(widths=(8, 16, 32, 64, 64)):
    """{published name: shape} of an autoencoder with *widths* channels in the encoder's levels."""
    shapes, last = {}, len(widths) - 1

    def conv(name, inner, outer, size=3):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, size, size, size), (outer,)

    def block(name, width):
        for number in (1, 2):
            shapes[f"{name}.norm{number}.gamma"] = (width, 1, 1, 1)
            conv(f"{name}.conv{number}.conv", width, width)

    def ends(half, width, inner, outer):
        conv(f"{half}.conv_in.conv", inner, width if half == "encoder" else widths[-1])
        block(f"{half}.mid.block_1", widths[-1])
        block(f"{half}.mid.block_2", widths[-1])
        shapes[f"{half}.mid.attn_1.norm.gamma"] = (widths[-1], 1, 1, 1)
        for name in ("q", "k", "v", "proj_out"):
            conv(f"{half}.mid.attn_1.{name}", widths[-1], widths[-1], 1)
        end = widths[-1] if half == "encoder" else width
        shapes[f"{half}.norm_out.gamma"] = (end, 1, 1, 1)
        conv(f"{half}.conv_out.conv", end, outer)

    ends("encoder", widths[0], 3, 64)
    ends("decoder", widths[0], 32, 3)
    for level, width in enumerate(widths):
        for number in range(2):
            block(f"encoder.down.{level}.block.{number}", width)
        if level < last:
            conv(f"encoder.down.{level}.downsample.conv.conv", width, widths[level + 1] // (8 if level >= 2 else 4))
    for level, width in enumerate(widths[::-1]):
        for number in range(3):
            block(f"decoder.up.{level}.block.{number}", width)
        if level < last:
            conv(f"decoder.up.{level}.upsample.conv.conv", width, widths[::-1][level + 1] * (8 if level < 2 else 4))
    return shapes


def hunyuan_vae_tensors(seed=0, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: random_weight(name, shape, generator) for name, shape in hunyuan_vae_layout(**sizes).items()}
    return {name: 1 + 0.1 * value if name.endswith("gamma") else value for name, value in tensors.items()}


def hunyuan_vae_file(path, seed=0, **sizes):
    """*path*, after such an autoencoder was written there."""
    save_file(hunyuan_vae_tensors(seed, **sizes), str(path))
    return str(path)


def first_vae_layout(widths=(32, 32, 64, 64), latent=16):
    """{published name: shape} of HunyuanVideo 1's autoencoder with *widths* channels in the levels."""
    shapes, last = {}, len(widths) - 1

    def conv(name, inner, outer, size=3):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, size, size, size), (outer,)

    def block(name, inner, outer):
        for number, width in ((1, inner), (2, outer)):
            shapes[f"{name}.norm{number}.weight"] = shapes[f"{name}.norm{number}.bias"] = (width,)
            conv(f"{name}.conv{number}.conv", width, outer)
        if inner != outer:
            conv(f"{name}.nin_shortcut.conv", inner, outer, 1)

    for half, first, end in (("encoder", 3, 2 * latent), ("decoder", latent, 3)):
        conv(f"{half}.conv_in.conv", first, widths[0] if half == "encoder" else widths[-1])
        for number in (1, 2):
            block(f"{half}.mid.block_{number}", widths[-1], widths[-1])
        shapes[f"{half}.mid.attn_1.norm.weight"] = shapes[f"{half}.mid.attn_1.norm.bias"] = (widths[-1],)
        for name in ("q", "k", "v", "proj_out"):
            conv(f"{half}.mid.attn_1.{name}", widths[-1], widths[-1], 1)
        out = widths[-1] if half == "encoder" else widths[0]
        shapes[f"{half}.norm_out.weight"] = shapes[f"{half}.norm_out.bias"] = (out,)
        conv(f"{half}.conv_out.conv", out, end)
    for level, width in enumerate(widths):
        for number in range(2):
            block(f"encoder.down.{level}.block.{number}", width if number else widths[max(0, level - 1)], width)
        for number in range(3):
            block(f"decoder.up.{level}.block.{number}", width if number else widths[min(last, level + 1)], width)
        if level < last:
            conv(f"encoder.down.{level}.downsample.conv.conv", width, width)
        if level:
            conv(f"decoder.up.{level}.upsample.conv.conv", width, width)
    conv("quant_conv", 2 * latent, 2 * latent, 1)
    conv("post_quant_conv", latent, latent, 1)
    return shapes


def first_vae_tensors(seed=0, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, shape, generator) for name, shape in first_vae_layout(**sizes).items()}


def first_vae_file(path, seed=0, **sizes):
    """*path*, after such an autoencoder was written there."""
    save_file(first_vae_tensors(seed, **sizes), str(path))
    return str(path)


def byt5_tensors(layers=2, vocabulary=400, seed=0):
    """A small ByT5 of the width that the networks take."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"shared.weight": (vocabulary, WRITTEN), "encoder.final_layer_norm.weight": (WRITTEN,)}
    for layer in range(layers):
        own = f"encoder.block.{layer}.layer."
        shapes |= {f"{own}{number}.layer_norm.weight": (WRITTEN,) for number in range(2)}
        shapes |= {f"{own}0.SelfAttention.{name}.weight": (32, WRITTEN) for name in "qkv"} | {
            f"{own}0.SelfAttention.o.weight": (WRITTEN, 32)
        }
        shapes |= {f"{own}1.DenseReluDense.{name}.weight": (48, WRITTEN) for name in ("wi_0", "wi_1")}
        shapes[f"{own}1.DenseReluDense.wo.weight"] = (WRITTEN, 48)
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, 4)
    return {name: random_weight(name, shape, generator) for name, shape in shapes.items()}


def upscaler_tensors(kind="720p", channels=32, hidden=8, seed=0):
    """A small model that makes enlarged latents sharper, for "720p" or "1080p"."""
    shapes, generator = {}, torch.Generator().manual_seed(seed)

    def conv(name, inner, outer, size=3):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, size, size, size), (outer,)

    if kind == "720p":
        conv("in_conv.conv", channels, hidden)
        conv("out_conv.conv", hidden, channels)
        for number in range(6):
            conv(f"blocks.{number // 3}.block.{number % 3 * 2}.conv", hidden, hidden)
    else:
        widths = (channels, hidden)
        conv("conv_in.conv", channels, channels)
        conv("conv_out.conv", hidden, channels)
        shapes["norm_out.gamma"] = (hidden, 1, 1, 1)
        for stage, width in enumerate(widths):
            for block in range(3):
                name, inner = f"up.{stage}.block.{block}", widths[0] if block == 0 else width
                shapes |= {f"{name}.norm1.gamma": (inner, 1, 1, 1), f"{name}.norm2.gamma": (width, 1, 1, 1)}
                conv(f"{name}.conv1.conv", inner, width)
                conv(f"{name}.conv2.conv", width, width)
                if inner != width:
                    conv(f"{name}.nin_shortcut", inner, width, 1)
    return {name: random_weight(name, shape, generator) for name, shape in shapes.items()}
