"""Nodes that turn sound into latents and back (part of ``nodes_audio``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.audio.resampling import resampled
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_values import Audio, audio_of, required

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

LATENT = "model/latent"
# A sound that is louder than this many times its standard deviation is made less loud.
LOUD = 5.0


def _rate_hz(vae: VAE) -> int:
    """Samples per second of what *vae* decodes to, which for some is not the rate that they take."""
    return getattr(vae, "audio_sample_rate_output", None) or vae.audio_sample_rate


class VAEEncodeAudio(io.ComfyNode):
    """Encodes sound to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VAEEncodeAudio",
            display_name="VAE Encode Audio",
            category=LATENT,
            search_aliases=["audio to latent"],
            inputs=[io.Audio.Input("audio"), io.Vae.Input("vae")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae: VAE, audio: Audio | None) -> io.NodeOutput:
        """The latent of *audio*, resampled to the autoencoder's rate. Raises ``ValueError`` without a sound."""
        sound = required(audio, "VAEEncodeAudio")
        waveform = resampled(sound["waveform"], sound["sample_rate"], vae.audio_sample_rate)
        return io.NodeOutput({"samples": vae.encode(waveform.movedim(1, -1))})

    encode = execute


def decoded_sound(vae: VAE, latent: Latent, tile: int | None = None, overlap: int | None = None) -> dict[str, Any]:
    """The sound of *latent* (of several joined ones, of the last), in pieces of *tile* places if that is given."""
    samples: Any = latent["samples"]
    if samples.is_nested:
        samples = samples.unbind()[-1]
    decoded = vae.decode(samples) if tile is None else vae.decode_tiled(samples, tile_x=tile, tile_y=tile, overlap=overlap)
    return audio_of(_softened(decoded.movedim(-1, 1)), latent.get("sample_rate", _rate_hz(vae)))


def _softened(sound_BCT: Tensor) -> Tensor:
    """Sounds, each divided so that none is louder than :data:`LOUD` deviations allow; quiet ones stay as they are."""
    loudness = torch.std(sound_BCT, dim=[1, 2], keepdim=True) * LOUD
    return sound_BCT.div_(loudness.clamp_(min=1.0))


class VAEDecodeAudio(io.ComfyNode):
    """Decodes latents to sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VAEDecodeAudio",
            display_name="VAE Decode Audio",
            category=LATENT,
            search_aliases=["latent to audio"],
            inputs=[io.Latent.Input("samples"), io.Vae.Input("vae")],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, vae: VAE, samples: Latent) -> io.NodeOutput:
        """The sound."""
        return io.NodeOutput(decoded_sound(vae, samples))

    decode = execute


class VAEDecodeAudioTiled(io.ComfyNode):
    """Decodes latents to sound piece by piece to save memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VAEDecodeAudioTiled",
            display_name="VAE Decode Audio (Tiled)",
            category=LATENT,
            search_aliases=["latent to audio"],
            inputs=[
                io.Latent.Input("samples"),
                io.Vae.Input("vae"),
                io.Int.Input("tile_size", default=512, min=32, max=8192, step=8),
                io.Int.Input("overlap", default=64, min=0, max=1024, step=8),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, vae: VAE, samples: Latent, tile_size: int, overlap: int) -> io.NodeOutput:
        """The sound. Sizes are in places of the latent."""
        return io.NodeOutput(decoded_sound(vae, samples, tile_size, overlap))
