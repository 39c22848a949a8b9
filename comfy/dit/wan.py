"""Wan 2.1 and 2.2: text to video, picture to video, first and last frame, control videos, VACE, cameras, and the 5B model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.dit.names.wan import DIFFUSERS, MOTION, halvings_of, lora_names
from comfy.families.family_settings import part_settings
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

log = logging.getLogger(__name__)

PATCH = (1, 2, 2)
HEAD = 128
MARK = "head.modulation"
CAUSAL = "causal_ar"
PICTURES = "img_emb.proj.0.bias"
USUAL_WIDTH = 2222  # of a network that takes ComfyUI's usual share of memory per latent pixel
# What tells the kinds of networks apart that are more than text or a picture to a video; the first that a file has counts.
KINDS = {
    "vace_patch_embedding.weight": "vace",
    "control_adapter.conv.weight": "camera",
    "casual_audio_encoder.encoder.final_linear.weight": "s2v",
    "audio_proj.audio_proj_glob_1.layer.bias": "humo",
    "face_adapter.fuser_blocks.0.k_norm.weight": "animate",
    "patch_embedding_mask.weight": "scail2",
    "patch_embedding_pose.weight": "scail",
    "patch_embedding_global.weight": "wandancer",
}
INJECTED = (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39)  # blocks after which S2V hears
SUPPORTED_KINDS = ("vace", "camera", "s2v", "humo", "animate", "scail", "scail2")


class WAN21_T2V(BASE):  # noqa: N801 - ComfyUI's name
    """Wan 2.1 and 2.2 of 1.3B and 14B without an image encoder: text to video, and 2.2's picture to video and control videos."""

    unet_config = {"image_model": "wan2.1", "model_type": "t2v"}
    sampling_settings = {"shift": 8.0}
    latent_format: Any = latent_formats.Wan21
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "wan"
    image_to_video = False
    memory_share = 1.0

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(unet_config, settings)
        self.memory_usage_factor = self.memory_share * self.unet_config.get("dim", 2000) / USUAL_WIDTH

    def inpaint_model(self) -> bool:
        """No: the model itself says what further channels are."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def get_model(self, state_dict: Mapping[str, Any], prefix: str = "", device: torch.device | None = None) -> model_base.BaseModel:
        """A new model without weights."""
        kind: Any = self.model_class()
        return kind(self, model_type=self.model_type(state_dict, prefix), image_to_video=self.image_to_video, device=device)

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"umt5xxl": ("text_encoders.umt5xxl.transformer.",)}


class WAN21_CausalAR_T2V(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.1 of text to video that makes some frames after those before them, which is told by its file's metadata."""

    unet_config = {"image_model": "wan2.1", "model_type": "t2v", CAUSAL: True}
    sampling_settings = {"shift": 5.0}

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__({name: value for name, value in unet_config.items() if name != CAUSAL}, settings)

    def get_model(self, state_dict: Mapping[str, Any], prefix: str = "", device: torch.device | None = None) -> model_base.BaseModel:
        return model_base.WAN21_CausalAR(self, device=device)


class WAN22_T2V(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.2 5B, with latents of its own: text or a picture to video, control videos, inpainting."""

    unet_config = {"image_model": "wan2.1", "model_type": "t2v", "out_dim": 48}
    latent_format: Any = latent_formats.Wan22
    image_to_video = True

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN22


class WAN21_I2V(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.1's picture to video, first and last frame, and inpainting, which look at pictures through an image encoder."""

    unet_config = {"image_model": "wan2.1", "model_type": "i2v", "in_dim": 36}
    image_to_video = True


class WAN21_FunControl2V(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.1's control videos."""

    unet_config = {"image_model": "wan2.1", "model_type": "i2v", "in_dim": 48}


class WAN21_Vace(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """VACE of any size."""

    unet_config = {"image_model": "wan2.1", "model_type": "vace"}
    memory_share = 1.2

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21_Vace


class WAN21_Camera(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.1 that is told where the camera is."""

    unet_config = {"image_model": "wan2.1", "model_type": "camera", "in_dim": 32}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21_Camera


class WAN_Animate2(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan-Animate 2, which is told by its file's metadata: its weights are those of a picture to video."""

    unet_config = {"image_model": "wan2.1", "model_type": "animate2"}
    sampling_settings = {"shift": 5.0}
    image_to_video = True

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN_Animate2


class WAN22_Camera(WAN21_Camera):  # noqa: N801 - ComfyUI's name
    """Wan 2.2 that is."""

    unet_config = {"image_model": "wan2.1", "model_type": "camera_2.2", "in_dim": 36}


class WAN21_HuMo(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """HuMo, which hears and looks at a picture of who is to be seen."""

    unet_config = {"image_model": "wan2.1", "model_type": "humo"}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21_HuMo


class WAN22_S2V(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.2's sound to video."""

    unet_config = {"image_model": "wan2.1", "model_type": "s2v"}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN22_S2V


class WAN22_Animate(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """Wan 2.2's Animate: a figure in a picture moves as poses in a video, with the face of another."""

    unet_config = {"image_model": "wan2.1", "model_type": "animate"}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN22_Animate


class WAN21_SCAIL(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """SCAIL: figures in a picture move as poses in a video."""

    unet_config = {"image_model": "wan2.1", "model_type": "scail"}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21_SCAIL


class WAN21_SCAIL2(WAN21_T2V):  # noqa: N801 - ComfyUI's name
    """SCAIL-2: with several figures, which are told apart by colours."""

    unet_config = {"image_model": "wan2.1", "model_type": "scail2"}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.WAN21_SCAIL2


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of one of Wan's networks with tensors of *shapes*, else None.

    Raises ``UnknownModelError`` for a relative of a kind that is not supported.
    """
    if MARK not in shapes:
        return None
    width = shapes[MARK][-1]
    if width % HEAD:
        raise ModelFileError(f"a network of {width} values per token has no known number of heads; it must be a multiple of {HEAD}")
    config: Config = {
        "image_model": "wan2.1",
        "dim": width,
        "out_dim": shapes["head.head.weight"][0] // (PATCH[1] * PATCH[2]),
        "num_heads": width // HEAD,
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": count_blocks(shapes, "blocks.{}."),
        "patch_size": PATCH,
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "text_dim": shapes["text_embedding.0.weight"][1],
        "window_size": (-1, -1),
        "qk_norm": True,
        "cross_attn_norm": True,
        "eps": 1e-6,
        "in_dim": shapes["patch_embedding.weight"][1],
        "model_type": _kind(shapes),
    }
    if config["model_type"] == "vace":
        config |= {"vace_in_dim": shapes["vace_patch_embedding.weight"][1], "vace_layers": count_blocks(shapes, "vace_blocks.{}.")}
    if config["model_type"] == "humo":
        names = {"audio_input_dim": 1, "audio_intermediate_dim": 0}
        config |= {name: shapes["audio_proj.audio_proj_glob_1.layer.weight"][place] for name, place in names.items()}
        config["audio_output_dim"] = shapes["audio_proj.audio_proj_glob_norm.layer.weight"][0]
    if config["model_type"] == "scail2":
        config["mask_in_dim"] = shapes["patch_embedding_mask.weight"][1]
    if config["model_type"] == "s2v":
        config |= _what_s2v_hears(shapes, width)
    if config["model_type"] == "animate":
        config |= _what_animate_sees(shapes)
    if "img_emb.emb_pos" in shapes:
        config["flf_pos_embed_token_number"] = shapes["img_emb.emb_pos"][1]
    if "ref_conv.weight" in shapes:
        config["in_dim_ref_conv"] = shapes["ref_conv.weight"][1]
    return config


def _what_s2v_hears(shapes: Shapes, width: int) -> Config:
    """The sizes of the parts that only S2V has."""
    rows, heard, _ = shapes["casual_audio_encoder.encoder.conv1_local.conv.weight"]
    return {
        "audio_dim": heard,
        "audio_layers": shapes["casual_audio_encoder.weights"][1],
        "num_audio_token": rows // (width // 4),
        "cond_dim": shapes["cond_encoder.weight"][1] if "cond_encoder.weight" in shapes else 0,
        "audio_inject_layers": INJECTED[: count_blocks(shapes, "audio_injector.injector.{}.")],
    }


def _what_animate_sees(shapes: Shapes) -> Config:
    """The sizes of the parts that look at faces."""
    halvings = halvings_of(shapes)
    narrow = [shapes[f"{MOTION}{number}.conv2.1.weight"][0] for number in range(1, halvings + 1)]
    within, made = shapes["face_encoder.out_proj.weight"][1], shapes["face_encoder.conv1_local.conv.weight"][0]
    values, directions = shapes["motion_encoder.dec.direction.weight"]
    return {
        "motion_encoder_dim": values,
        "style_dim": shapes[f"{MOTION}{halvings + 1}.weight"][0],
        "motion_dim": directions,
        "motion_widths": (shapes[f"{MOTION}0.0.weight"][0], *narrow),
        "face_dim": within,
        "face_heads": made // within,
    }


def _kind(shapes: Shapes) -> str:
    kind = next((kind for mark, kind in KINDS.items() if mark in shapes), None)
    if kind is None:
        return "i2v" if PICTURES in shapes else "t2v"
    if kind not in SUPPORTED_KINDS:
        raise UnknownModelError(
            f"it is Wan's network of the kind {kind!r}, which is not supported; supported: {', '.join(SUPPORTED_KINDS)}"
        )
    return "camera_2.2" if kind == "camera" and PICTURES not in shapes else kind


def with_metadata(config: Config, metadata: Mapping[str, str], name: str = "the file") -> Config:
    """*config* with what the file's metadata says of the kind of network and its sizes, which counts before the shapes.

    Raises ``ModelFileError`` where that is not understood. Members that nothing here knows are named in the log.
    """
    settings = dict(part_settings(metadata, "transformer", name))
    if settings.pop(CAUSAL, False):
        config = {**config, CAUSAL: True}
    unknown = sorted(settings.keys() - config.keys())
    if unknown:
        log.warning("%s: %d settings of the transformer in its metadata are not used: %s", name, len(unknown), ", ".join(unknown))
    return {**config, **{key: value for key, value in settings.items() if key in config}}


FIGURES = (WAN_Animate2, WAN22_Animate, WAN21_SCAIL2, WAN21_SCAIL)
HEARING = (WAN22_S2V, WAN21_HuMo)
CAMERAS = (WAN22_Camera, WAN21_Camera)
FAMILY = Family(
    name="Wan 2.1 and 2.2",
    configs=(*FIGURES, *HEARING, *CAMERAS, WAN21_Vace, WAN22_T2V, WAN21_FunControl2V, WAN21_I2V, WAN21_CausalAR_T2V, WAN21_T2V),
    read_config=read_config,
    diffusers=DIFFUSERS,
    lora_names=lora_names,
    with_metadata=with_metadata,
)
