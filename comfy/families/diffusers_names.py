"""diffusers' names of the published weights of UNets, autoencoders and ControlNets; values only."""

from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import unet_layout, vae_layout
from comfy.families.sd_unet_config import UNetConfig
from comfy.families.unet_key_names import VECTOR_NAMES, unet_to_diffusers

_VAE_LAYERS = {
    "nin_shortcut": "conv_shortcut",
    "attn_1.norm": "attentions.0.group_norm",
    "attn_1.q": "attentions.0.to_q",
    "attn_1.k": "attentions.0.to_k",
    "attn_1.v": "attentions.0.to_v",
    "attn_1.proj_out": "attentions.0.to_out.0",
    "block_1": "resnets.0",
    "block_2": "resnets.1",
    "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "mid": "mid_block",
    "norm_out": "conv_norm_out",
}
_EARLIER_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def vector_names() -> dict[str, str]:
    """Published to diffusers' names of SDXL's embedding of the vector conditioning alone."""
    return _with_leaves(VECTOR_NAMES)


def unet_names(config: UNetConfig) -> dict[str, str]:
    """Published name (no prefix) of each weight of a UNet to diffusers' name."""
    names = {published: name for name, published in unet_to_diffusers(config.as_dict()).items()}
    names |= vector_names()
    if not config.middle_depth:
        names |= {key.replace("middle_block.2", "middle_block.1"): name for key, name in names.items() if key.startswith("middle_block.2")}
    return {key: names[key] for key in unet_layout(config)}


def control_names(config: UNetConfig, stem_layers: int) -> dict[str, str]:
    """Published name of each weight of a ControlNet, whose hint passes *stem_layers* convolutions, to diffusers' name."""
    names = {key: name for key, name in unet_names(config).items() if not key.startswith(("output_blocks", "out."))}
    blocks = 1 + sum(config.num_res_blocks) + len(config.channels) - 1
    extra = {f"zero_convs.{index}.0": f"controlnet_down_blocks.{index}" for index in range(blocks)}
    extra["middle_block_out.0"] = "controlnet_mid_block"
    stem = ["conv_in", *(f"blocks.{index}" for index in range(stem_layers - 2)), "conv_out"]
    extra |= {f"input_hint_block.{2 * index}": f"controlnet_cond_embedding.{layer}" for index, layer in enumerate(stem)}
    return names | _with_leaves(extra)


def vae_names(config: KlVaeConfig) -> dict[str, str]:
    """Published name (no prefix) of each weight of an autoencoder to diffusers' name."""
    return {key: _vae_name(key, len(config.channels)) for key in vae_layout(config)}


def earlier_vae_name(name: str) -> str:
    """What diffusers called the autoencoder's weight *name* before its attention layers got their present names."""
    for new, old in _EARLIER_ATTENTION.items():
        name = name.replace(f".{new}.", f".{old}.") if ".attentions." in name else name
    return name


def _vae_name(key: str, levels: int) -> str:
    parts = key.split(".")
    if parts[1] == "down":
        parts[1:3] = ["down_blocks", parts[2]]
    elif parts[1] == "up":
        parts[1:3] = ["up_blocks", str(levels - 1 - int(parts[2]))]
    name = ".".join("resnets" if part == "block" else part for part in parts)
    for published, own in _VAE_LAYERS.items():
        name = name.replace(f".{published}.", f".{own}.")
    return name


def _with_leaves(names: dict[str, str]) -> dict[str, str]:
    return {f"{published}.{leaf}": f"{name}.{leaf}" for published, name in names.items() for leaf in ("weight", "bias")}
