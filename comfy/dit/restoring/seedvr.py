"""SeedVR2: restores and enlarges pictures and videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

MARKS = ("positive_conditioning", "negative_conditioning", "emb_in.proj_hid.weight", "vid_in.proj.weight")
HEAD = 128
SMALLER_TURNED, LARGER_TURNED = 128, 64  # values of a head, in the network of 3 and in that of 7 billion weights


class SeedVR2(BASE):
    """The networks of 3 and 7 billion weights."""

    unet_config: Config = {"image_model": "seedvr2"}
    sampling_settings = {"shift": 1.0}
    latent_format: Any = latent_formats.SeedVR2
    supported_inference_dtypes = (torch.bfloat16, torch.float16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)

    def inpaint_model(self) -> bool:
        """No: what is restored comes as conditioning."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SeedVR2

    def set_inference_dtype(self, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None, device: Any = None) -> None:
        """Compute in bfloat16 what is kept in float16, where the device can."""
        if dtype == torch.float16 and manual_cast_dtype is None and comfy.model_management.should_use_bf16(device):
            manual_cast_dtype = torch.bfloat16
        super().set_inference_dtype(dtype, manual_cast_dtype, device)


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    if any(mark not in shapes for mark in MARKS):
        return None
    width, count = shapes["vid_in.proj.weight"][0], count_blocks(shapes, "blocks.{}.")
    own = [number for number in range(count) if f"blocks.{number}.attn.proj_qkv.vid.weight" in shapes]
    kind = "all" if not own else "vid"
    smaller = "vid_out_norm.weight" in shapes
    return {
        "image_model": "seedvr2",
        "vid_dim": width,
        "heads": shapes[f"blocks.0.attn.proj_qkv.{kind}.weight"][0] // (3 * HEAD),
        "num_layers": count,
        "mm_layers": len(own),
        "norm_eps": 1e-5,
        "mlp_type": "swiglu" if f"blocks.0.mlp.{kind}.proj_in_gate.weight" in shapes else "normal",
        "rope_type": "mmrope3d" if smaller else "rope3d",
        "rope_dim": SMALLER_TURNED if smaller else LARGER_TURNED,
        **({"vid_out_norm": True} if smaller else {}),
    }


FAMILY = Family(name="SeedVR2", configs=(SeedVR2,), read_config=read_config)
