"""Nodes for LTX-Video and LTX 2; those for sound are in ``nodes_lt_audio``. Other names are :mod:`comfy.placeholders`."""

from __future__ import annotations

from comfy.placeholders import placeholders
from comfy_extras.ltx_duration_node import LTXVDurationPredictor
from comfy_extras.ltx_guides import (
    GetICLoRAParameters,
    ICLoRAParameters,
    LTXVAddGuide,
    LTXVCropGuides,
    conditioning_get_any_value,
    get_keyframe_idxs,
    get_noise_mask,
)
from comfy_extras.ltx_latent_nodes import (
    EmptyLTXVLatentVideo,
    LTXVConcatAVLatent,
    LTXVImgToVideo,
    LTXVImgToVideoInplace,
    LTXVPreprocess,
    LTXVSeparateAVLatent,
    preprocess,
)
from comfy_extras.ltx_sampling_nodes import (
    Guider_LTXAVDualCFG,
    LTXVConditioning,
    LTXVDualCFGGuider,
    LTXVModalityGuidance,
    LTXVReferenceAudio,
    LTXVScheduler,
    LTXVSpatioTemporalGuidance,
    ModelSamplingLTXV,
)
from comfy_extras.node_extension import extension_of

__all__ = [
    "EmptyLTXVLatentVideo",
    "GetICLoRAParameters",
    "Guider_LTXAVDualCFG",
    "ICLoRAParameters",
    "LTXVAddGuide",
    "LTXVConcatAVLatent",
    "LTXVConditioning",
    "LTXVCropGuides",
    "LTXVDualCFGGuider",
    "LTXVDurationPredictor",
    "LTXVImgToVideo",
    "LTXVImgToVideoInplace",
    "LTXVModalityGuidance",
    "LTXVPreprocess",
    "LTXVReferenceAudio",
    "LTXVScheduler",
    "LTXVSeparateAVLatent",
    "LTXVSpatioTemporalGuidance",
    "ModelSamplingLTXV",
    "comfy_entrypoint",
    "conditioning_get_any_value",
    "get_keyframe_idxs",
    "get_noise_mask",
    "preprocess",
]

comfy_entrypoint = extension_of(
    *(EmptyLTXVLatentVideo, LTXVImgToVideo, LTXVImgToVideoInplace, ModelSamplingLTXV, LTXVConditioning, LTXVScheduler),
    *(GetICLoRAParameters, LTXVAddGuide, LTXVPreprocess, LTXVCropGuides, LTXVConcatAVLatent, LTXVSeparateAVLatent),
    *(LTXVReferenceAudio, LTXVDualCFGGuider, LTXVModalityGuidance, LTXVSpatioTemporalGuidance, LTXVDurationPredictor),
)

__getattr__, __dir__ = placeholders(
    __name__, "LTX-Video models", "_append_guide_attention_entry() encode_single_frame() decode_single_frame()"
)
