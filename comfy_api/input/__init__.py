"""The older import path of ``comfy_api.latest.Input``."""

from comfy_api.latest._input import (
    AudioInput,
    CurveInput,
    CurvePoint,
    ImageInput,
    LatentInput,
    LinearCurve,
    MaskInput,
    MonotoneCubicCurve,
    RangeInput,
    VideoInput,
)

__all__ = [
    "AudioInput", "CurveInput", "CurvePoint", "ImageInput", "LatentInput", "LinearCurve", "MaskInput", "MonotoneCubicCurve",
    "RangeInput", "VideoInput",
]  # fmt: skip
