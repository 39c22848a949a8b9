"""Arguments of ComfyUI's networks that have one meaning here: another one is refused, so that no result is silently different."""

from collections.abc import Collection, Mapping
from typing import Any

from comfy.families.sd_unet_config import VIDEO

ANY: Collection[Any] = ()  # changes no result: training, memory, or sizes of examples

UNET_SIZES = frozenset(
    """in_channels out_channels model_channels channel_mult num_res_blocks transformer_depth transformer_depth_output
    transformer_depth_middle context_dim use_linear_in_transformer adm_in_channels num_heads num_head_channels""".split()
)
UNET: Mapping[str, Collection[Any]] = {
    "image_size": ANY,
    "dropout": ANY,
    "use_checkpoint": ANY,
    "legacy": ANY,
    "use_new_attention_order": ANY,
    "disable_unet_model_creation": ANY,
    "merge_factor": ANY,
    "time_context_dim": ANY,
    "disable_temporal_crossattention": ANY,
    "attn_precision": (None,),
    "conv_resample": (True,),
    "dims": (2,),
    "num_classes": (None, "sequential"),
    "use_scale_shift_norm": (False,),
    "resblock_updown": (False,),
    "use_spatial_transformer": (True,),
    "n_embed": (None,),
    "disable_self_attentions": (None,),
    "num_attention_blocks": (None,),
    "disable_middle_self_attn": (False,),
    "use_temporal_resblock": (False,),
    "use_temporal_attention": (False,),
    "extra_ff_mix_layer": (False,),
    "use_spatial_context": (False,),
    "merge_strategy": (None,),
    "video_kernel_size": (None,),
    "max_ddpm_temb_period": (10000,),
    "union_controlnet_num_control_type": (None,),
}
AUTOENCODER: Mapping[str, Collection[Any]] = {
    "attn_resolutions": ((), []),
    "use_linear_attn": (False,),
    "attn_type": ("vanilla",),
    "conv3d": (False,),
    "time_compress": (None,),
    "give_pre_end": (False,),
    "double_z": ANY,
    "in_channels": ANY,
    "out_ch": ANY,
    "tanh_out": ANY,
}


def refuse_others(what: str, given: Mapping[str, Any], known: Mapping[str, Collection[Any]]) -> None:
    """Raise for a member of *given* that *known* lacks (``TypeError``) or allows no such value of (``ValueError``); *what* is the class."""
    for name, value in given.items():
        if name not in known:
            raise TypeError(f"{what} has no argument {name!r}")
        if known[name] is not ANY and not any(value == allowed and type(value) is type(allowed) for allowed in known[name]):
            choices = " or ".join(map(repr, known[name]))
            raise ValueError(f"{what} with {name}={value!r} is not supported here, only {choices}; such a network would give other results")


def check_unet(what: str, unet_config: Mapping[str, Any], over_frames: bool = False) -> None:
    """The same for the ``unet_config`` of a UNet or of half of one. *over_frames*: it may be a network over frames; then all that concerns
    them must be as known.
    """
    known = {**UNET, "num_heads_upsample": (-1, unet_config.get("num_heads"))}
    if over_frames and unet_config.get("use_temporal_attention"):
        missing = sorted(VIDEO.keys() - unet_config.keys())
        if missing:
            raise ValueError(f"{what} with use_temporal_attention=True is not supported here without {', '.join(missing)}")
        known |= {name: (value,) for name, value in VIDEO.items()}
    refuse_others(what, {name: value for name, value in unet_config.items() if name not in UNET_SIZES}, known)
