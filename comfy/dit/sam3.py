"""SAM 3 and 3.1, which find, outline and follow things in pictures and videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.utils
from comfy import model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.open_clip_names import to_open_clip
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.sam3.weights import TEXT, parameter_name
from comfy.supported_models_base import BASE, ClipTarget

EYES, FIND, TRACK = "detector.backbone.vision_backbone.", "detector.transformer.", "tracker."
HEADS = 16  # of the eyes, in all sizes
ENLARGED = 3  # the sides of its pictures, by those that the eyes were first trained on
MASK_LAYER = "maskmem_backbone.mask_downsampler.encoder.{}.weight"


class SAM3(BASE):
    """SAM 3."""

    unet_config = {"image_model": "SAM3"}
    text_encoder_key_prefix = (TEXT,)

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """What ComfyUI says, though it samples nothing."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SAM3

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"sam3_clip": (f"{TEXT}encoder.",)}

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> ClipTarget:
        """Its own, which takes several prompts at once."""
        from comfy.text_encoders.sam3_clip import SAM3ClipModelWrapper, SAM3TokenizerWrapper

        return ClipTarget(SAM3TokenizerWrapper, SAM3ClipModelWrapper)

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The network's tensors, which have no prefix in a checkpoint."""
        return state_dict

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The text encoder's tensors under their names in a checkpoint."""
        text = comfy.utils.state_dict_prefix_replace(dict(state_dict), {"sam3_clip.transformer.": ""}, filter_keys=True)
        return {f"{TEXT}encoder.{key}": tensor for key, tensor in to_open_clip(text).items()}


class SAM31(SAM3):
    """SAM 3.1, which follows many things at once."""

    unet_config = {"image_model": "SAM31"}


def read_config(shapes: Shapes) -> Config | None:
    """The sizes of such a network with tensors of *shapes*, else None."""
    if f"{EYES}trunk.blocks.0.attn.qkv.weight" not in shapes or f"{FIND}decoder.query_embed.weight" not in shapes:
        return None
    named = {name: shape for key, shape in shapes.items() if (name := parameter_name(key)) is not None}
    multiplex = f"{EYES}propagation_convs.0.conv_1x1.weight" in named
    width, _, patch, _ = named[f"{EYES}trunk.patch_embed.proj.weight"]
    grid = round((named[f"{EYES}trunk.pos_embed"][1] - 1) ** 0.5)
    d_model, text = named["detector.backbone.language_backbone.resizer.weight"]
    memories, *_, memory = named[f"{TRACK}maskmem_tpos_enc"]
    masks = [shape for number in range(0, 30, 3) if len(shape := named.get(TRACK + MASK_LAYER.format(number), ())) == 4]
    return {
        "image_model": "SAM31" if multiplex else "SAM3",
        "embed_dim": width,
        "depth": count_blocks(named, f"{EYES}trunk.blocks.{{}}."),
        "num_heads": HEADS,
        "mlp_dim": named[f"{EYES}trunk.blocks.0.mlp.fc1.weight"][0],
        "patch_size": patch,
        "pretrain_grid": grid,
        "grid": grid * ENLARGED,
        "text_dim": text,
        "d_model": d_model,
        "dim_ff": named[f"{FIND}encoder.layers.0.linear1.weight"][0],
        "encoder_layers": count_blocks(named, f"{FIND}encoder.layers.{{}}."),
        "decoder_layers": count_blocks(named, f"{FIND}decoder.layers.{{}}."),
        "num_queries": named[f"{FIND}decoder.query_embed.weight"][0],
        "geometry_layers": count_blocks(named, "detector.geometry_encoder.encode.{}."),
        "roi_size": named["detector.geometry_encoder.boxes_pool_project.weight"][2],
        "mem_dim": memory,
        "num_maskmem": memories,
        "memory_layers": count_blocks(named, f"{TRACK}transformer.encoder.layers.{{}}."),
        "mask_channels": tuple(shape[0] for shape in masks[:-1]),
        "fuser_layers": count_blocks(named, f"{TRACK}maskmem_backbone.fuser.layers.{{}}."),
        "num_multiplex": named[f"{TRACK}output_valid_embed"][0] if multiplex else 1,
    }


FAMILY = Family(name="SAM 3", configs=(SAM3, SAM31), read_config=read_config)
