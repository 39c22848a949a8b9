"""Pictures, videos and sounds as Gemma 4's networks take them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch

from comfy.audio.resampling import Kernel, resampled

SIDE = 48  # of the square of pixels that becomes a token
PICTURE_TOKENS, FRAME_TOKENS = 280, 70  # at most, of a picture and of a video's frame
FRAMES_PER_SECOND = 24
HEARD_HZ = 16000
MOMENT, MOMENTS = 640, 750  # samples that become a token where sound is taken raw, and so many of these at most
CAREFUL = Kernel(crossings=121, rolloff=0.9568384289091556, beta=21.01531462440614)  # nearly what SoX makes
DEEPEST = 255.0


def fitting_size(height: int, width: int, tokens: int) -> tuple[int, int]:
    """Height and width in whole squares, of nearly the same shape, that become no more than so many *tokens*."""
    factor = math.sqrt(tokens * SIDE**2 / (height * width))
    rows, columns = math.floor(factor * height / SIDE), math.floor(factor * width / SIDE)
    if not rows:
        rows, columns = 1, min(width // height, tokens)
    elif not columns:
        rows, columns = min(height // width, tokens), 1
    return rows * SIDE, columns * SIDE


def seen_pictures(images: torch.Tensor, tokens: int) -> list[torch.Tensor]:
    """Each of *images* (B x height x width x 3 or more, 0…1) for at most so many *tokens*: 1 x height x width x 3."""
    size = fitting_size(images.shape[1], images.shape[2], tokens)
    return [_sized(image[..., :3], size) for image in images.split(1)]


def _sized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    stored = (image.clamp(0, 1) * DEEPEST).floor()
    if tuple(image.shape[1:3]) != size:
        planes = torch.nn.functional.interpolate(stored.movedim(-1, 1).float(), size=size, mode="bicubic", antialias=True)
        stored = planes.clamp(0, DEEPEST).round().movedim(1, -1)
    return stored / DEEPEST


def seen_frames(video: torch.Tensor, fps: float = FRAMES_PER_SECOND) -> list[torch.Tensor]:
    """One frame of each second of *video* (frames x height x width x 3)."""
    return seen_pictures(video[:: max(1, round(fps))], FRAME_TOKENS)


def mono(audio: Mapping[str, Any]) -> torch.Tensor:
    """The samples of *audio* ({"waveform": 1 x channels x samples, "sample_rate"}), one channel of 16 kHz, float32."""
    channels = audio["waveform"][0].float().mean(dim=0)
    return resampled(channels, int(audio["sample_rate"]), HEARD_HZ, CAREFUL)


def spectrum(samples: torch.Tensor) -> dict[str, Any]:
    """What ears take: {"data": 1 x moments x bands, "mask": 1 x moments}. Raises ``ValueError`` for less than a moment."""
    made = _extractor()([samples.cpu().numpy()], max_length=None, truncation=False, return_tensors="pt")
    if not made["input_features"].shape[1]:
        raise ValueError(f"a sound of {len(samples) / HEARD_HZ:.3f} s is too short to be heard; give at least 0.02 s")
    return {"type": "audio", "data": made["input_features"], "mask": made["input_features_mask"].bool()}


def raw_moments(samples: torch.Tensor) -> dict[str, Any]:
    """What the model without ears takes: {"data": 1 x moments x samples, "mask": 1 x moments}, half a minute at most."""
    padded = torch.nn.functional.pad(samples, (0, -len(samples) % MOMENT))
    moments = padded.unflatten(0, (-1, MOMENT))[None, :MOMENTS]
    return {"type": "audio", "data": moments, "mask": torch.ones(moments.shape[:2], dtype=torch.bool)}


@functools.cache
def _extractor() -> Any:
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor

    return Gemma4AudioFeatureExtractor()
