"""Lists names and shapes of the tensors in published single-file models from a model's sizes.

Used to map files with diffusers' own key names, to save checkpoints, and to write checkpoints for tests and benchmarks.
"""

from collections.abc import Iterator

from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.sd_unet_config import NO_MIDDLE, UNetConfig

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def _weight_bias(name: str, *shape: int) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def unet_layout(config: UNetConfig) -> dict[str, Shape]:
    """The UNet's tensors; their names lack ``model.diffusion_model.``."""
    time = config.model_channels * 4
    tensors = dict(_weight_bias("time_embed.0", time, config.model_channels))
    tensors |= _weight_bias("time_embed.2", time, time)
    if config.adm_in_channels is not None:
        tensors |= _weight_bias("label_emb.0.0", time, config.adm_in_channels)
        tensors |= _weight_bias("label_emb.0.2", time, time)
    tensors |= _weight_bias("input_blocks.0.0", config.model_channels, config.in_channels, 3, 3)
    number, channels, skips = 1, config.model_channels, [config.model_channels]
    depths, output_depths = list(config.depths), list(config.output_depths)
    for level, width in enumerate(config.channels):
        for _ in range(config.num_res_blocks[level]):
            tensors |= _block(f"input_blocks.{number}", config, channels, width, depths.pop(0))
            number, channels = number + 1, width
            skips.append(width)
        if level + 1 < len(config.channels):
            tensors |= _weight_bias(f"input_blocks.{number}.0.op", width, width, 3, 3)
            number += 1
            skips.append(width)
    if config.middle_depth != NO_MIDDLE:
        tensors |= _res_block("middle_block.0", channels, channels, time)
    if config.middle_depth >= 0:
        tensors |= _transformer("middle_block.1", config, channels, config.middle_depth)
        tensors |= _res_block("middle_block.2" if config.middle_depth else "middle_block.1", channels, channels, time)
    number = 0
    for level in reversed(range(len(config.channels))):
        width = config.channels[level]
        for index in range(config.num_res_blocks[level] + 1):
            depth = output_depths.pop()
            tensors |= _block(f"output_blocks.{number}", config, channels + skips.pop(), width, depth)
            channels = width
            if level and index == config.num_res_blocks[level]:
                tensors |= _weight_bias(f"output_blocks.{number}.{2 if depth else 1}.conv", width, width, 3, 3)
            number += 1
    tensors |= _weight_bias("out.0", channels)
    tensors |= _weight_bias("out.2", config.out_channels, config.model_channels, 3, 3)
    return tensors


def _block(name: str, config: UNetConfig, channels_in: int, channels_out: int, depth: int) -> dict[str, Shape]:
    return {
        **_res_block(f"{name}.0", channels_in, channels_out, config.model_channels * 4),
        **_transformer(f"{name}.1", config, channels_out, depth),
    }


def _res_block(name: str, channels_in: int, channels_out: int, time: int) -> dict[str, Shape]:
    tensors = dict(_weight_bias(f"{name}.in_layers.0", channels_in))
    tensors |= _weight_bias(f"{name}.in_layers.2", channels_out, channels_in, 3, 3)
    tensors |= _weight_bias(f"{name}.emb_layers.1", channels_out, time)
    tensors |= _weight_bias(f"{name}.out_layers.0", channels_out)
    tensors |= _weight_bias(f"{name}.out_layers.3", channels_out, channels_out, 3, 3)
    if channels_in != channels_out:
        tensors |= _weight_bias(f"{name}.skip_connection", channels_out, channels_in, 1, 1)
    return tensors


def _transformer(name: str, config: UNetConfig, width: int, depth: int) -> dict[str, Shape]:
    if not depth:
        return {}
    window = () if config.use_linear else (1, 1)
    context = config.context_dim or width
    tensors = dict(_weight_bias(f"{name}.norm", width))
    tensors |= _weight_bias(f"{name}.proj_in", width, width, *window)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, source in (("attn1", width), ("attn2", context)):
            tensors |= {
                f"{block}.{attention}.to_q.weight": (width, width),
                f"{block}.{attention}.to_k.weight": (width, source),
                f"{block}.{attention}.to_v.weight": (width, source),
            }
            tensors |= _weight_bias(f"{block}.{attention}.to_out.0", width, width)
        tensors |= _weight_bias(f"{block}.ff.net.0.proj", width * 8, width)
        tensors |= _weight_bias(f"{block}.ff.net.2", width, width * 4)
        for norm in ("norm1", "norm2", "norm3"):
            tensors |= _weight_bias(f"{block}.{norm}", width)
    tensors |= _weight_bias(f"{name}.proj_out", width, width, *window)
    return tensors


def vae_layout(config: KlVaeConfig) -> dict[str, Shape]:
    """The autoencoder's tensors; their names lack ``first_stage_model.``."""
    channels, latent = config.channels, config.latent_channels
    tensors = dict(_weight_bias("encoder.conv_in", channels[0], config.image_channels, 3, 3))
    width = channels[0]
    for level, out in enumerate(channels):
        for index in range(config.num_res_blocks):
            tensors |= _vae_res_block(f"encoder.down.{level}.block.{index}", width, out)
            width = out
        if level + 1 < len(channels):
            tensors |= _weight_bias(f"encoder.down.{level}.downsample.conv", out, out, 3, 3)
    tensors |= _vae_middle("encoder.mid", width)
    tensors |= _weight_bias("encoder.norm_out", width)
    tensors |= _weight_bias("encoder.conv_out", latent * 2, width, 3, 3)
    channels = config.decoder_channels or channels
    width = channels[-1]
    tensors |= _weight_bias("decoder.conv_in", width, latent, 3, 3)
    tensors |= _vae_middle("decoder.mid", width)
    for level in reversed(range(len(channels))):
        for index in range(config.num_res_blocks + 1):
            tensors |= _vae_res_block(f"decoder.up.{level}.block.{index}", width, channels[level])
            width = channels[level]
        if level:
            tensors |= _weight_bias(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    tensors |= _weight_bias("decoder.norm_out", width)
    tensors |= _weight_bias("decoder.conv_out", config.image_channels, width, 3, 3)
    if config.quant_conv:
        tensors |= _weight_bias("quant_conv", latent * 2, latent * 2, 1, 1)
        tensors |= _weight_bias("post_quant_conv", latent, latent, 1, 1)
    if config.normalised:
        tensors |= {f"bn.running_{name}": (config.shown_channels,) for name in ("mean", "var")}
    return tensors


def _vae_res_block(name: str, channels_in: int, channels_out: int) -> dict[str, Shape]:
    tensors = dict(_weight_bias(f"{name}.norm1", channels_in))
    tensors |= _weight_bias(f"{name}.conv1", channels_out, channels_in, 3, 3)
    tensors |= _weight_bias(f"{name}.norm2", channels_out)
    tensors |= _weight_bias(f"{name}.conv2", channels_out, channels_out, 3, 3)
    if channels_in != channels_out:
        tensors |= _weight_bias(f"{name}.nin_shortcut", channels_out, channels_in, 1, 1)
    return tensors


def _vae_middle(name: str, width: int) -> dict[str, Shape]:
    tensors = _vae_res_block(f"{name}.block_1", width, width)
    tensors |= _weight_bias(f"{name}.attn_1.norm", width)
    for layer in ("q", "k", "v", "proj_out"):
        tensors |= _weight_bias(f"{name}.attn_1.{layer}", width, width, 1, 1)
    return tensors | _vae_res_block(f"{name}.block_2", width, width)


def clip_layout(config: ClipTextConfig) -> dict[str, Shape]:
    """A CLIP text model's tensors in transformers' names (``text_model.…``)."""
    width, hidden = config.hidden_size, config.intermediate_size
    tensors: dict[str, Shape] = {
        "text_model.embeddings.token_embedding.weight": (config.vocabulary, width),
        "text_model.embeddings.position_embedding.weight": (config.positions, width),
    }
    for index in range(config.num_layers):
        layer = f"text_model.encoder.layers.{index}"
        tensors |= _weight_bias(f"{layer}.layer_norm1", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= _weight_bias(f"{layer}.self_attn.{projection}", width, width)
        tensors |= _weight_bias(f"{layer}.layer_norm2", width)
        tensors |= _weight_bias(f"{layer}.mlp.fc1", hidden, width)
        tensors |= _weight_bias(f"{layer}.mlp.fc2", width, hidden)
    tensors |= _weight_bias("text_model.final_layer_norm", width)
    if config.projection:
        tensors["text_projection.weight"] = (config.projection, width)
    return tensors


def open_clip_layout(config: ClipTextConfig) -> dict[str, Shape]:
    """A CLIP text model's tensors in open_clip's names: ``in_proj`` is fused, the projection transposed and named without ``.weight``."""
    width, hidden = config.hidden_size, config.intermediate_size
    tensors: dict[str, Shape] = {"positional_embedding": (config.positions, width)}
    if config.projection:
        tensors["text_projection"] = (width, config.projection)
    tensors["logit_scale"] = ()
    for index in range(config.num_layers):
        block = f"transformer.resblocks.{index}"
        tensors |= _weight_bias(f"{block}.ln_1", width)
        tensors |= {f"{block}.attn.in_proj_weight": (width * 3, width), f"{block}.attn.in_proj_bias": (width * 3,)}
        tensors |= _weight_bias(f"{block}.attn.out_proj", width, width)
        tensors |= _weight_bias(f"{block}.ln_2", width)
        tensors |= _weight_bias(f"{block}.mlp.c_fc", hidden, width)
        tensors |= _weight_bias(f"{block}.mlp.c_proj", width, hidden)
    tensors["token_embedding.weight"] = (config.vocabulary, width)
    return tensors | dict(_weight_bias("ln_final", width))
