"""RT-DETR v4, which finds things in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy import model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.rt_detr.backbone import Stage
from comfy.supported_models_base import BASE

MARK = "encoder.pan_blocks.1.cv4.conv.weight"
STAGES = 4


class RT_DETR_v4(BASE):  # noqa: N801 - ComfyUI's name
    """All sizes."""

    unet_config = {"image_model": "RT_DETR_v4"}
    supported_inference_dtypes = (torch.float16, torch.float32)

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """What ComfyUI says, though it samples nothing."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.RT_DETR_v4


def read_config(shapes: Shapes) -> Config | None:
    """The sizes of such a network with tensors of *shapes*, else None."""
    if MARK not in shapes or "decoder.enc_score_head.weight" not in shapes:
        return None
    width, mixed, _, _ = shapes[MARK]
    classes, inner = shapes["decoder.enc_score_head.weight"]
    first = "decoder.dec_bbox_head.0.layers."
    bins = shapes[f"{first}{count_blocks(shapes, first + '{}.') - 1}.weight"][0] // 4
    return {
        "image_model": "RT_DETR_v4",
        "stem": tuple(shapes[f"backbone.stem.{name}.conv.weight"][0] for name in ("stem1", "stem4")),
        "stages": tuple(_stage(shapes, f"backbone.stages.{number}.") for number in range(STAGES)),
        "enc_h": width,
        "enc_inner": mixed // 2 - width,
        "enc_blocks": count_blocks(shapes, "encoder.pan_blocks.0.cv2.0.bottlenecks.{}."),
        "enc_ff": shapes["encoder.encoder.0.layers.0.linear1.weight"][0],
        "enc_layers": count_blocks(shapes, "encoder.encoder.0.layers.{}."),
        "dec_h": inner,
        "dec_ff": shapes["decoder.decoder.layers.0.linear1.weight"][0],
        "dec_layers": count_blocks(shapes, "decoder.decoder.layers.{}."),
        "lqe": shapes["decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight"][0],
        "classes": classes,
        "bins": bins,
    }


def _stage(shapes: Shapes, stem: str) -> Stage:
    """The stage whose tensors' names begin with *stem*."""
    layer = f"{stem}blocks.0.layers.0."
    light = f"{layer}conv1.conv.weight" in shapes
    kernel = shapes[f"{layer}conv2.conv.weight" if light else f"{layer}conv.weight"]
    return Stage(
        inputs=shapes[f"{layer}{'conv1.conv' if light else 'conv'}.weight"][1],
        inner=kernel[0],
        outputs=shapes[f"{stem}blocks.0.aggregation.1.conv.weight"][0],
        blocks=count_blocks(shapes, f"{stem}blocks.{{}}."),
        layers=count_blocks(shapes, f"{stem}blocks.0.layers.{{}}."),
        kernel=kernel[2],
        light=light,
        halves=f"{stem}downsample.conv.weight" in shapes,
    )


FAMILY = Family(name="RT-DETR v4", configs=(RT_DETR_v4,), read_config=read_config)
