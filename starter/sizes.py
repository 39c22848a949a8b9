"""The starter models' dimensions. A loader finds them from shapes alone; the file's header holds the rest."""

import json

from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.family_settings import METADATA_KEY
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.published_layout import clip_layout, unet_layout, vae_layout
from comfy.families.sd_unet_config import UNetConfig

Shape = tuple[int, ...]

TEXT = ClipTextConfig(
    vocabulary=49408, positions=77, hidden_size=64, intermediate_size=256, num_layers=2, num_heads=1, hidden_act="quick_gelu", projection=0
)
UNET = UNetConfig(
    in_channels=4,
    out_channels=4,
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    depths=(1, 0),
    output_depths=(1, 1, 0, 0),
    middle_depth=1,
    context_dim=64,
    use_linear=False,
    adm_in_channels=None,
    num_heads=8,
    num_head_channels=-1,
)
VAE = KlVaeConfig(image_channels=3, latent_channels=4, channels=(32, 32, 32, 64), num_res_blocks=1, quant_conv=True)
LATENT_SCALE = 0.18215  # Stable Diffusion 1.x: sampler latent = autoencoder latent * this

UNET_PREFIX, TEXT_PREFIX, VAE_PREFIX = "model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model."


def checkpoint_shapes() -> dict[str, Shape]:
    """Every tensor's name in a starter checkpoint and its shape."""
    parts = {UNET_PREFIX: unet_layout(UNET), TEXT_PREFIX: clip_layout(TEXT), VAE_PREFIX: vae_layout(VAE)}
    return {prefix + name: shape for prefix, layout in parts.items() for name, shape in layout.items()}


def header_metadata() -> dict[str, str]:
    """The checkpoint's header entries: head counts and activation."""
    return {
        METADATA_KEY: json.dumps(
            {"unet": {"num_heads": UNET.num_heads}, "clip_l": {"num_attention_heads": TEXT.num_heads, "hidden_act": TEXT.hidden_act}}
        )
    }
