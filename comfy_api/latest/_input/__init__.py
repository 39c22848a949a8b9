"""The values that nodes receive: images, masks, sound, latents, videos, curves and ranges."""

from .basic_types import AudioInput, ImageInput, LatentInput, MaskInput
from .curve_types import CurveInput, CurvePoint, LinearCurve, MonotoneCubicCurve
from .range_types import RangeInput
from .video_types import VideoInput

__all__ = [
    "AudioInput", "CurveInput", "CurvePoint", "ImageInput", "LatentInput", "LinearCurve", "MaskInput", "MonotoneCubicCurve",
    "RangeInput", "VideoInput",
]  # fmt: skip
