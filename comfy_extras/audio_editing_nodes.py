"""Nodes that make, cut, join and filter sound (part of ``nodes_audio``).

Inputs are optional in fact: a video without a sound track has None, which passes through.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy.audio.resampling import resampled
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_filters import Shape, equalized
from comfy_extras.audio_values import Audio, audio_of, check_alike, check_fits

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
log = logging.getLogger(__name__)

ANY_SECONDS = 0xFFFFFFFFFFFFFFFF
MAX_RATE_HZ = 192_000
# No resonance at the edge of a shelf.
SHELF_QUALITY = 0.707


class EmptyAudio(io.ComfyNode):
    """Silence."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rate = io.Int.Input(
            "sample_rate", default=44100, min=1, max=MAX_RATE_HZ, advanced=True, tooltip="Samples per second of the silence."
        )
        return io.Schema(
            node_id="EmptyAudio",
            display_name="Empty Audio",
            category="audio",
            search_aliases=["blank audio"],
            inputs=[
                io.Float.Input("duration", default=60.0, min=0.0, max=ANY_SECONDS, step=0.01, tooltip="Length of the silence in seconds."),
                rate,
                io.Int.Input("channels", default=2, min=1, max=2, advanced=True, tooltip="1 is mono, 2 is stereo."),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, duration: float, sample_rate: int, channels: int) -> io.NodeOutput:
        """Zeros of *duration* seconds. Raises ``ValueError`` when they do not fit into memory."""
        samples = round(duration * sample_rate)
        check_fits(samples * channels, f"EmptyAudio: silence of {duration:g} s")
        return io.NodeOutput(audio_of(torch.zeros(1, channels, samples), sample_rate))

    create_empty_audio = execute


class TrimAudioDuration(io.ComfyNode):
    """Cuts a part out of sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        start_help = "Where the part begins, in seconds, fractions included; below 0 it counts from the end."
        return io.Schema(
            node_id="TrimAudioDuration",
            display_name="Trim Audio Duration",
            category="audio",
            description="Keeps one part of the sound.",
            search_aliases=["cut audio", "audio clip", "shorten audio"],
            inputs=[
                io.Audio.Input("audio"),
                io.Float.Input("start_index", default=0.0, min=-ANY_SECONDS, max=ANY_SECONDS, step=0.01, tooltip=start_help),
                io.Float.Input("duration", default=60.0, min=0.0, step=0.01, tooltip="Length of the part in seconds."),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio: Audio | None, start_index: float, duration: float) -> io.NodeOutput:
        """The samples from *start_index* on, at most *duration* seconds. Raises ``ValueError`` when none lie there."""
        if audio is None or not audio["waveform"].shape[-1]:
            return io.NodeOutput(audio)
        waveform, rate_hz = audio["waveform"], audio["sample_rate"]
        length = waveform.shape[-1]
        start = round(start_index * rate_hz) + (length if start_index < 0 else 0)
        start = min(max(start, 0), length)
        end = min(start + round(duration * rate_hz), length)
        if end <= start:
            raise ValueError(
                f"TrimAudioDuration: nothing is left of {length / rate_hz:g} s of sound from {start_index:g} s on for {duration:g} s; "
                "let the part begin within the sound and last longer than 0 s"
            )
        return io.NodeOutput(audio_of(waveform[..., start:end], rate_hz))

    trim = execute


class SplitAudioChannels(io.ComfyNode):
    """The two channels of stereo sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SplitAudioChannels",
            display_name="Split Audio Channels",
            category="audio",
            description="Gives the left and the right channel of stereo sound, each as mono sound.",
            search_aliases=["stereo to mono"],
            inputs=[io.Audio.Input("audio")],
            outputs=[io.Audio.Output(display_name="left"), io.Audio.Output(display_name="right")],
        )

    @classmethod
    def execute(cls, audio: Audio | None) -> io.NodeOutput:
        """Left and right. Raises ``ValueError`` for any other number of channels."""
        if audio is None:
            return io.NodeOutput(None, None)
        waveform = audio["waveform"]
        if waveform.shape[1] != 2:
            raise ValueError(f"SplitAudioChannels: only stereo sound has a left and a right channel; this has {waveform.shape[1]}")
        left, right = (audio_of(waveform[:, channel : channel + 1], audio["sample_rate"]) for channel in (0, 1))
        return io.NodeOutput(left, right)

    separate = execute


class JoinAudioChannels(io.ComfyNode):
    """Stereo sound of two mono sounds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoinAudioChannels",
            display_name="Join Audio Channels",
            category="audio",
            description="Makes two mono sounds the left and the right channel of one.",
            inputs=[io.Audio.Input("audio_left"), io.Audio.Input("audio_right")],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def execute(cls, audio_left: Audio | None, audio_right: Audio | None) -> io.NodeOutput:
        """As long as the shorter one, at the higher sample rate. Raises ``ValueError`` unless both are mono."""
        if audio_left is None or audio_right is None:
            return io.NodeOutput(audio_right if audio_left is None else audio_left)
        channels = audio_left["waveform"].shape[1], audio_right["waveform"].shape[1]
        if channels != (1, 1):
            raise ValueError(f"JoinAudioChannels: both sounds must be mono; they have {channels[0]} and {channels[1]} channels")
        left, right, rate_hz = _at_one_rate(audio_left, audio_right, "JoinAudioChannels")
        length = min(left.shape[-1], right.shape[-1])
        if left.shape[-1] != right.shape[-1]:
            log.info("JoinAudioChannels: the longer channel is cut to the %s samples of the shorter one", length)
        left, right = _same_batch(left[..., :length], right[..., :length])
        return io.NodeOutput(audio_of(torch.cat([left, right], dim=1), rate_hz))


def match_audio_sample_rates(waveform_1: Tensor, sample_rate_1: int, waveform_2: Tensor, sample_rate_2: int) -> tuple[Tensor, Tensor, int]:
    """Both waveforms at the higher of the two rates, and that rate. Packs import it from ``nodes_audio``."""
    rate_hz = max(sample_rate_1, sample_rate_2)
    return resampled(waveform_1, sample_rate_1, rate_hz), resampled(waveform_2, sample_rate_2, rate_hz), rate_hz


def _at_one_rate(first: Audio, second: Audio, node_id: str) -> tuple[Tensor, Tensor, int]:
    """Both waveforms, checked to go together, at the higher rate, and that rate."""
    waveforms, rates_hz = (first["waveform"], second["waveform"]), (first["sample_rate"], second["sample_rate"])
    check_alike(*waveforms, node_id)
    if rates_hz[0] != rates_hz[1]:
        log.info("%s: %s Hz and %s Hz meet; the lower rate is raised", node_id, *rates_hz)
        for waveform, rate_hz in zip(waveforms, rates_hz, strict=True):
            check_fits(waveform.numel() * max(rates_hz) // rate_hz, f"{node_id}: sound of {rate_hz} Hz at {max(rates_hz)} Hz")
    return match_audio_sample_rates(waveforms[0], rates_hz[0], waveforms[1], rates_hz[1])


def _same_batch(first_BCT: Tensor, second_BCT: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the larger number of sounds; a single one stands for each."""
    sounds = max(len(first_BCT), len(second_BCT))
    return first_BCT.expand(sounds, -1, -1), second_BCT.expand(sounds, -1, -1)


class AudioConcat(io.ComfyNode):
    """One sound behind the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        direction_help = "Where audio2 comes: after audio1 or before it."
        return io.Schema(
            node_id="AudioConcat",
            display_name="Concatenate Audio",
            category="audio",
            description="Plays two sounds one after the other.",
            search_aliases=["join audio", "combine audio", "append audio"],
            inputs=[
                io.Audio.Input("audio1"),
                io.Audio.Input("audio2"),
                io.Combo.Input("direction", options=["after", "before"], default="after", tooltip=direction_help),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio1: Audio | None, audio2: Audio | None, direction: str) -> io.NodeOutput:
        """Both at the higher sample rate; mono sound becomes stereo. Raises ``ValueError`` when channels or batches do not match."""
        if audio1 is None or audio2 is None:
            return io.NodeOutput(audio2 if audio1 is None else audio1)
        first, second, rate_hz = _at_one_rate(_stereo(audio1), _stereo(audio2), "AudioConcat")
        first, second = _same_batch(first, second)
        ordered = (first, second) if direction == "after" else (second, first)
        return io.NodeOutput(audio_of(torch.cat(ordered, dim=2), rate_hz))

    concat = execute


def _stereo(audio: Audio) -> Audio:
    """*audio* with at least two channels."""
    waveform = audio["waveform"]
    return audio if waveform.shape[1] != 1 else audio_of(waveform.repeat(1, 2, 1), audio["sample_rate"])


class AudioMerge(io.ComfyNode):
    """Two sounds at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        methods = ["add", "mean", "subtract", "multiply"]
        return io.Schema(
            node_id="AudioMerge",
            display_name="Merge Audio",
            category="audio",
            description="Plays two sounds at the same time.",
            search_aliases=["mix audio", "overlay audio", "layer audio"],
            inputs=[
                io.Audio.Input("audio1"),
                io.Audio.Input("audio2"),
                io.Combo.Input("merge_method", options=methods, tooltip="What is done with the samples of both."),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio1: Audio | None, audio2: Audio | None, merge_method: str) -> io.NodeOutput:
        """As long as *audio1*, at the higher sample rate; louder than 1, all of it is made quieter. Without samples, *audio1*."""
        if audio1 is None or audio2 is None:
            return io.NodeOutput(audio2 if audio1 is None else audio1)
        first, second, rate_hz = _at_one_rate(audio1, audio2, "AudioMerge")
        if not first.shape[-1] or not second.shape[-1]:
            return io.NodeOutput(audio_of(first, rate_hz))
        length = first.shape[-1]
        if second.shape[-1] != length:
            log.info("AudioMerge: audio2 has %s samples and is brought to the %s of audio1", second.shape[-1], length)
        second = torch.nn.functional.pad(second, (0, length - second.shape[-1]))
        merged = _merged(first, second, merge_method)
        return io.NodeOutput(audio_of(merged / merged.abs().max().clamp(min=1.0), rate_hz))

    merge = execute


def _merged(first: Tensor, second: Tensor, method: str) -> Tensor:
    if method == "multiply":
        return first * second
    if method == "subtract":
        return first - second
    return (first + second) / (2 if method == "mean" else 1)


class AudioAdjustVolume(io.ComfyNode):
    """Sound, louder or quieter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        volume_help = "Decibels to add: 0 changes nothing, 6 doubles the amplitude, -6 halves it."
        return io.Schema(
            node_id="AudioAdjustVolume",
            display_name="Adjust Audio Volume",
            category="audio",
            description="Makes the sound louder or quieter by so many decibels.",
            search_aliases=["audio gain", "loudness", "audio level"],
            inputs=[io.Audio.Input("audio"), io.Int.Input("volume", default=1, min=-100, max=100, tooltip=volume_help)],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio: Audio | None, volume: float) -> io.NodeOutput:
        """The samples times 10^(*volume* / 20); nothing is clipped."""
        if audio is None or volume == 0:
            return io.NodeOutput(audio)
        return io.NodeOutput(audio_of(audio["waveform"] * 10 ** (volume / 20), audio["sample_rate"]))

    adjust_volume = execute


class AudioEqualizer3Band(io.ComfyNode):
    """Low, middle and high frequencies, each louder or quieter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def gain(name: str, what: str) -> io.Input:
            return io.Float.Input(name, default=0.0, min=-24.0, max=24.0, step=0.1, tooltip=f"Decibels for {what}; 0 leaves them alone.")

        return io.Schema(
            node_id="AudioEqualizer3Band",
            display_name="Audio Equalizer (3-Band)",
            category="audio",
            is_experimental=True,
            search_aliases=["eq", "bass boost", "treble boost", "equalizer"],
            inputs=[
                io.Audio.Input("audio"),
                gain("low_gain_dB", "low frequencies"),
                io.Int.Input("low_freq", default=100, min=20, max=500, tooltip="Below it, frequencies are low (Hz)."),
                gain("mid_gain_dB", "middle frequencies"),
                io.Int.Input("mid_freq", default=1000, min=200, max=4000, tooltip="The middle of the middle frequencies (Hz)."),
                io.Float.Input("mid_q", default=0.707, min=0.1, max=10.0, step=0.1, tooltip="The larger, the fewer are middle ones."),
                gain("high_gain_dB", "high frequencies"),
                io.Int.Input("high_freq", default=5000, min=1000, max=15000, tooltip="Above it, frequencies are high (Hz)."),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio: Audio | None, **bands: Any) -> io.NodeOutput:
        """A filter for each band whose gain is not 0, in turn; the result of each is clipped to -1…1."""
        if audio is None or not audio["waveform"].shape[-1]:
            return io.NodeOutput(audio)
        waveform, rate_hz = audio["waveform"], int(audio["sample_rate"])
        steps: tuple[tuple[Shape, str, float], ...] = (
            ("low shelf", "low", SHELF_QUALITY),
            ("peak", "mid", bands["mid_q"]),
            ("high shelf", "high", SHELF_QUALITY),
        )
        for shape, band, quality in steps:
            if gain_db := bands[f"{band}_gain_dB"]:
                waveform = equalized(waveform, rate_hz, shape, gain_db, float(bands[f"{band}_freq"]), quality)
        return io.NodeOutput(audio_of(waveform, rate_hz))
