"""LTX 2's audio autoencoder: diffusers' network for spectra, and the vocoder that makes sound of them, over the published weights.

Shapes: B sounds, C channels, T samples, M frames of a spectrum of P pitches, L times of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import LTX2AudioDecoder, LTX2AudioEncoder

import comfy.ops
from comfy.audio.ltx_vocoder import Vocoder, VocoderWithBWE, diffusers_name
from comfy.audio.resampling import resampled
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.family_settings import part_settings
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.published_weights import parameters_from_buffers
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.ltx_vae import LatentStatistics

WHAT = "the audio VAE"
MARKS = ("vocoder.resblocks.0.convs1.0.weight", "vocoder.vocoder.resblocks.0.convs1.0.weight")
PREFIXES = ("audio_vae.", "autoencoder.")  # of the autoencoder's tensors, of which the second are ComfyUI's
FRAMES_PER_LATENT = 4
SAMPLES_PER_LATENT = 4096  # as ComfyUI counts them for tiles and cuts
RATE_HZ = 44100  # of the sound that ComfyUI brings
QUIETEST = 1e-5


@dataclass(frozen=True, slots=True)
class LtxAudioConfig:
    """The published settings of one such autoencoder and its vocoder."""

    autoencoder: Mapping[str, Any]
    vocoder: Mapping[str, Any]

    @property
    def rate_hz(self) -> int:
        """Samples per second of the sound whose spectrum is encoded."""
        return self._parameters().get("sampling_rate", self.autoencoder.get("sampling_rate", 16000))

    @property
    def hop(self) -> int:
        """Samples from one frame of the spectrum to the next."""
        return self._transform().get("hop_length", 160)

    @property
    def window(self) -> int:
        """Samples that a frame is made of."""
        return self._transform().get("filter_length", 1024)

    def half(self, name: str) -> Mapping[str, Any]:
        """The settings of the "encoder" or "decoder"."""
        parameters = self._parameters()
        return parameters.get(name, parameters.get("ddconfig", parameters.get("encoder", {})))

    def _parameters(self) -> Mapping[str, Any]:
        return self.autoencoder.get("model", {}).get("params", {})

    def _transform(self) -> Mapping[str, Any]:
        return self.autoencoder.get("preprocessing", {}).get("stft", {})


def read_ltx_audio_config(source: WeightSource) -> LtxAudioConfig:
    """The settings in *source*'s metadata. Raises ``UnknownModelError`` for a file without."""
    found = {part: part_settings(source.metadata, part, source.name) for part in ("audio_vae", "vocoder")}
    missing = [part for part, settings in found.items() if not settings]
    if missing:
        raise UnknownModelError(f"its metadata says nothing of {' and '.join(missing)}, which its sizes cannot be told without")
    return LtxAudioConfig(found["audio_vae"], found["vocoder"])


class Autoencoder(torch.nn.Module):
    """Spectra to latents and back, under the published names."""

    def __init__(self, config: LtxAudioConfig) -> None:
        super().__init__()
        self.encoder: Any = LTX2AudioEncoder(**_arguments(config, "encoder"))
        self.decoder: Any = LTX2AudioDecoder(**{name: value for name, value in _arguments(config, "decoder").items() if name != "double_z"})
        pitches = config.half("encoder").get("mel_bins", 64) // FRAMES_PER_LATENT
        self.per_channel_statistics = LatentStatistics(config.half("decoder")["z_channels"] * pitches)
        self.sampling_rate, self.mel_hop_length, self.n_fft = config.rate_hz, config.hop, config.window
        self.mel_bins = config.half("encoder").get("mel_bins", 64)


def _arguments(config: LtxAudioConfig, half: str) -> dict[str, Any]:
    """What diffusers' network is made with for a *half*."""
    settings = config.half(half)
    return {
        "base_channels": settings["ch"],
        "output_channels": settings["out_ch"],
        "ch_mult": tuple(settings.get("ch_mult", (1, 2, 4))),
        "num_res_blocks": settings["num_res_blocks"],
        "attn_resolutions": set(settings.get("attn_resolutions") or ()),
        "in_channels": settings["in_channels"],
        "resolution": settings["resolution"],
        "latent_channels": settings["z_channels"],
        "norm_type": settings.get("norm_type", "group"),
        "causality_axis": settings.get("causality_axis", "width"),
        "mid_block_add_attention": settings.get("mid_block_add_attention", True),
        "sample_rate": config.rate_hz,
        "mel_hop_length": config.hop,
        "mel_bins": settings.get("mel_bins", 64),
        "double_z": settings.get("double_z", True),
    }


class LtxAudioAutoencoder(torch.nn.Module):
    """Turns sound (B x C x T at 44100 Hz, -1 to 1) into latents (B x 8 x L x 16) and these into sound at ``output_sample_rate`` Hz.

    Parameters are on the meta device until :func:`load_ltx_audio`; ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: LtxAudioConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"), torch.no_grad():
            self.autoencoder = Autoencoder(config)
            self.vocoder = VocoderWithBWE(config.vocoder) if "bwe" in config.vocoder else Vocoder(config.vocoder)
        parameters_from_buffers(self.vocoder)
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.config.half("decoder")["z_channels"])

    @property
    def latent_frequency_bins(self) -> int:
        """Pitches of a latent."""
        return int(self.autoencoder.mel_bins // FRAMES_PER_LATENT)

    @property
    def latents_per_second(self) -> float:
        """Times of a latent in a second."""
        return self.config.rate_hz / self.config.hop / FRAMES_PER_LATENT

    @property
    def output_sample_rate(self) -> int:
        """Samples per second of what is decoded."""
        stated = self.vocoder.output_sample_rate
        return int(self.config.rate_hz * self.vocoder.upsample_factor / self.config.hop if stated is None else stated)

    def num_of_latents_from_frames(self, frames_number: int, frame_rate: float) -> int:
        """Times of the latent of sound for a video of so many frames."""
        return round(float(frames_number) / frame_rate * self.latents_per_second)

    def encode(self, x: torch.Tensor, sample_rate: int = RATE_HZ) -> torch.Tensor:
        """The mean of the latent distribution for sound at *sample_rate* Hz. Raises ``ValueError`` for other numbers of channels."""
        channels = self.config.half("encoder")["in_channels"]
        if x.shape[1] not in (1, channels):
            raise ValueError(f"the audio VAE takes sound of {channels} channels, but was given one of {x.shape[1]}")
        spectrum = self.spectrum(resampled(x.expand(-1, channels, -1), sample_rate, self.config.rate_hz))
        mean = self.autoencoder.encoder(spectrum)[:, : self.latent_channels]
        statistics = self.autoencoder.per_channel_statistics
        return self._by_time(mean, lambda tokens: statistics.normalize(tokens))

    def decode(self, z: torch.Tensor, **ignored: Any) -> torch.Tensor:
        """The sound of a latent."""
        statistics = self.autoencoder.per_channel_statistics
        return self.vocoder(self.autoencoder.decoder(self._by_time(z, lambda tokens: statistics.un_normalize(tokens))))

    def spectrum(self, sound: torch.Tensor) -> torch.Tensor:
        """The logarithm of the spectrum of *sound* (at the rate of training): B x C x M x P."""
        window = torch.hann_window(self.config.window, device=sound.device, dtype=sound.dtype)
        settings: dict[str, Any] = {"hop_length": self.config.hop, "window": window, "return_complex": True}
        waves = torch.stft(sound.flatten(0, 1), self.config.window, **settings).abs()
        heard = self._pitches().to(waves) @ waves
        return heard.clamp(min=QUIETEST).log().unflatten(0, sound.shape[:2]).transpose(2, 3).contiguous()

    def _pitches(self) -> torch.Tensor:
        """How much of each frequency is in each pitch: P x frequencies."""
        from transformers.audio_utils import mel_filter_bank

        frequencies, rate = self.config.window // 2 + 1, self.config.rate_hz
        bank = mel_filter_bank(frequencies, self.autoencoder.mel_bins, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
        return torch.from_numpy(bank).T

    @staticmethod
    def _by_time(latents: torch.Tensor, change: Any) -> torch.Tensor:
        """*latents* (B x C x L x P) after *change*, which takes them as B x C·P x L: every channel and pitch has its own figures."""
        changed = change(latents.transpose(2, 3).flatten(1, 2))
        return changed.unflatten(1, (latents.shape[1], latents.shape[3])).transpose(2, 3)


def load_ltx_audio(model: LtxAudioAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (published names, or ComfyUI's) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_conversion(part.shapes(), lambda tensors: {own_name(name): value for name, value in tensors.items()})
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def own_name(name: str) -> str:
    """The name of the parameter that the tensor *name* of a file is for."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return "autoencoder." + name.removeprefix(prefix)
    if not name.startswith("vocoder."):
        return name
    inner = name.removeprefix("vocoder.")
    if not inner.startswith(("vocoder.", "bwe_generator.", "mel_stft.", "resampler.")):
        inner = "vocoder." + inner  # of files without a second one
    return "vocoder." + diffusers_name(inner)
