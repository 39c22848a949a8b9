"""Nodes for sound: files, editing, latents, and what Stable Audio starts from. Sound files need PyAV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_editing_nodes import (
    AudioAdjustVolume,
    AudioConcat,
    AudioEqualizer3Band,
    AudioMerge,
    EmptyAudio,
    JoinAudioChannels,
    SplitAudioChannels,
    TrimAudioDuration,
    match_audio_sample_rates,
)
from comfy_extras.audio_file_nodes import LoadAudio, PreviewAudio, RecordAudio, SaveAudio, SaveAudioAdvanced, SaveAudioMP3, SaveAudioOpus
from comfy_extras.audio_model_nodes import VAEDecodeAudio, VAEDecodeAudioTiled, VAEEncodeAudio
from comfy_extras.audio_reading import read_audio
from comfy_extras.empty_latents import MAX_BATCH
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

# What Stable Audio's autoencoder makes of sound: so many values for so many samples at this rate.
LATENT_CHANNELS, SAMPLES_PER_LATENT, LATENT_RATE_HZ = 64, 2048, 44100

# Packs read files with it: a path -> (waveform [channel, sample], samples per second).
load = read_audio


class EmptyLatentAudio(io.ComfyNode):
    """Zeros in the latent space of Stable Audio."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        batch_help = "How many sounds are made at once."
        return io.Schema(
            node_id="EmptyLatentAudio",
            display_name="Empty Latent Audio",
            category="model/latent",
            essentials_category="Audio",
            inputs=[
                io.Float.Input("seconds", default=47.6, min=1.0, max=1000.0, step=0.1),
                io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip=batch_help),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds: float, batch_size: int) -> io.NodeOutput:
        """A latent of *batch_size* × 64 × the even length that is next to *seconds*."""
        length = 2 * round(seconds * LATENT_RATE_HZ / SAMPLES_PER_LATENT / 2)
        samples = torch.zeros(batch_size, LATENT_CHANNELS, length, device=model_management.intermediate_device())
        return io.NodeOutput({"samples": samples, "type": "audio", "downscale_ratio_temporal": SAMPLES_PER_LATENT})

    generate = execute


class ConditioningStableAudio(io.ComfyNode):
    """Tells Stable Audio which part of how long a piece it makes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ConditioningStableAudio",
            category="model/conditioning/stable audio",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Float.Input("seconds_start", default=0.0, min=0.0, max=1000.0, step=0.1),
                io.Float.Input("seconds_total", default=47.0, min=0.0, max=1000.0, step=0.1),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, positive: Conditioning, negative: Conditioning, seconds_start: float, seconds_total: float) -> io.NodeOutput:
        """Both with the two times in every entry."""
        times = {"seconds_start": seconds_start, "seconds_total": seconds_total}
        return io.NodeOutput(*(node_helpers.conditioning_set_values(given, times) for given in (positive, negative)))

    append = execute


__all__ = [
    "AudioAdjustVolume", "AudioConcat", "AudioEqualizer3Band", "AudioMerge", "ConditioningStableAudio", "EmptyAudio", "EmptyLatentAudio",
    "JoinAudioChannels", "LoadAudio", "PreviewAudio", "RecordAudio", "SaveAudio", "SaveAudioAdvanced", "SaveAudioMP3", "SaveAudioOpus",
    "SplitAudioChannels", "TrimAudioDuration", "VAEDecodeAudio", "VAEDecodeAudioTiled", "VAEEncodeAudio",
    "comfy_entrypoint", "load", "match_audio_sample_rates",
]  # fmt: skip

_FILES = (LoadAudio, RecordAudio, PreviewAudio, SaveAudioAdvanced, SaveAudio, SaveAudioMP3, SaveAudioOpus)
_EDITING = (TrimAudioDuration, AudioConcat, AudioMerge, SplitAudioChannels, JoinAudioChannels, AudioAdjustVolume, AudioEqualizer3Band)
_MODELS = (VAEEncodeAudio, VAEDecodeAudio, VAEDecodeAudioTiled, EmptyLatentAudio, ConditioningStableAudio)
comfy_entrypoint = extension_of(*_FILES, EmptyAudio, *_EDITING, *_MODELS)
