"""LTX 2's vocoders, which make sound of a spectrum: diffusers' network under its names, with what files say of it.

Shapes: B sounds, C channels, T samples, M frames of a spectrum of P pitches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, MelSTFT, SnakeBeta, UpSample1d

from comfy.families.model_errors import UnknownModelError

PITCHES = 64  # of the spectrum of a channel
SMOOTH = "AMP1"  # the kind of residual block whose activations are filtered
KINDS = ("1", SMOOTH)
# diffusers' names of parts that it calls otherwise.
NAMES = (
    (re.compile(r"(^|\.)conv_pre\."), r"\1conv_in."),
    (re.compile(r"(^|\.)ups\."), r"\1upsamplers."),
    (re.compile(r"(^|\.)resblocks\."), r"\1resnets."),
    (re.compile(r"(^|\.)act_post\."), r"\1act_out."),
    (re.compile(r"(^|\.)conv_post\."), r"\1conv_out."),
    (re.compile(r"\.lowpass\.filter$"), ".filter"),
)


def diffusers_name(name: str) -> str:
    """diffusers' name of a vocoder's tensor."""
    for pattern, theirs in NAMES:
        name = pattern.sub(theirs, name)
    return name


def build_vocoder(settings: Mapping[str, Any], final: bool = True) -> LTX2Vocoder:
    """The network that *settings* describe, with its last activation or without. Raises ``UnknownModelError`` for other kinds."""
    kind, shape = settings.get("resblock", "1"), settings.get("activation", "snake")
    if kind not in KINDS:
        raise UnknownModelError(f"its vocoder has residual blocks {kind!r}; supported: {', '.join(KINDS)}")
    channels = 2 if settings.get("stereo", True) else 1
    last = "tanh" if settings.get("use_tanh_at_final", True) else "clamp"
    built = LTX2Vocoder(
        in_channels=channels * PITCHES,
        hidden_channels=settings.get("upsample_initial_channel", 1024),
        out_channels=channels,
        upsample_kernel_sizes=settings.get("upsample_kernel_sizes", [16, 16, 8, 4, 4]),
        upsample_factors=settings.get("upsample_rates", [5, 4, 2, 2, 2]),
        resnet_kernel_sizes=settings.get("resblock_kernel_sizes", [3, 7, 11]),
        resnet_dilations=settings.get("resblock_dilation_sizes", [[1, 3, 5]] * 3),
        act_fn=shape if kind == SMOOTH else "leaky_relu",
        antialias=kind == SMOOTH,
        final_act_fn=last if final and settings.get("apply_final_activation", True) else None,
        final_bias=settings.get("use_bias_at_final", True),
    )
    if kind == SMOOTH and shape != "snakebeta":  # where diffusers takes the other one for granted
        built.act_out.act = SnakeBeta(built.conv_out.in_channels, use_beta=False)
    return built


class Vocoder(torch.nn.Module):
    """A vocoder alone."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.vocoder: Any = build_vocoder(settings)
        self.output_sample_rate: int | None = settings.get("output_sample_rate")
        self.upsample_factor = prod(settings.get("upsample_rates", [5, 4, 2, 2, 2]))

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """B x C x M x P to B x C x T."""
        return self.vocoder(spectrum)


class VocoderWithBWE(Vocoder):
    """One whose sound a second one, which hears it, brings to a higher rate."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings["vocoder"])
        further = settings["bwe"]
        self.bwe_generator: Any = build_vocoder(further, final=False)
        self.hop_length, self.input_sample_rate = further["hop_length"], further["input_sampling_rate"]
        self.output_sample_rate = further["output_sampling_rate"]
        window = further["n_fft"]
        self.mel_stft: Any = MelSTFT(window, self.hop_length, window, further["num_mels"])
        del self.mel_stft.stft_fn.inverse_basis  # which only the way back needs
        with torch.device("cpu"):  # its filter is in no file
            self.resampler = UpSample1d(further["output_sampling_rate"] // self.input_sample_rate, window_type="hann", persistent=False)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """B x C x M x P to B x C x T."""
        low = super().forward(spectrum)
        samples = low.shape[-1] * int(self.output_sample_rate or 0) // self.input_sample_rate
        low = F.pad(low, (0, -low.shape[-1] % self.hop_length))
        heard = self.mel_stft(low.flatten(0, 1))[0].unflatten(0, low.shape[:2])
        high = self.bwe_generator(heard, time_last=True) + self.resampler(low)
        return high.clamp(-1, 1)[..., :samples]
