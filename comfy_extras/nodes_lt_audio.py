"""Nodes for the sound of LTX 2: its autoencoder, empty latents, and the text encoder of video and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_model_nodes import VAEEncodeAudio
from comfy_extras.audio_values import Audio, audio_of
from comfy_extras.empty_latents import MAX_BATCH, empty_latent
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Latent

sd = lazy_module("comfy.sd")
audio_vae_files = lazy_module("comfy.loading.audio_vae")
torch = lazy_module("torch")

LATENTS, LOADERS = "model/latent/ltxv", "model/loaders"


def _audio_vae(tooltip: str) -> io.Input:
    return io.Vae.Input("audio_vae", display_name="Audio VAE", tooltip=tooltip)


def _checkpoint(**options: Any) -> io.Combo.Input:
    return io.Combo.Input("ckpt_name", options=folder_paths.get_filename_list("checkpoints"), **options)


class LTXVAudioVAELoader(io.ComfyNode):
    """Loads the audio autoencoder in a checkpoint."""

    READS_AHEAD = {"ckpt_name": "checkpoints"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVAudioVAELoader",
            display_name="Load LTXV Audio VAE",
            category=LOADERS,
            inputs=[_checkpoint(tooltip="The checkpoint that it is in.")],
            outputs=[io.Vae.Output(display_name="Audio VAE")],
        )

    @classmethod
    def execute(cls, ckpt_name: str) -> io.NodeOutput:
        """The autoencoder. Raises ``RuntimeError`` where the checkpoint has none, ``ModelFileError`` where it is damaged."""
        return io.NodeOutput(audio_vae_files.load_audio_vae(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)))


class LTXVAudioVAEEncode(VAEEncodeAudio):
    """Encodes sound to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVAudioVAEEncode",
            display_name="LTXV Audio VAE Encode",
            category=LATENTS,
            inputs=[io.Audio.Input("audio", tooltip="The sound."), _audio_vae("The autoencoder.")],
            outputs=[io.Latent.Output(display_name="Audio Latent")],
        )

    @classmethod
    def execute(cls, audio: Audio | None, audio_vae: VAE) -> io.NodeOutput:  # type: ignore[override]  # ComfyUI's signature
        """The latent. Raises ``ValueError`` without a sound."""
        return super().execute(audio_vae, audio)


class LTXVAudioVAEDecode(io.ComfyNode):
    """Decodes latents to sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVAudioVAEDecode",
            display_name="LTXV Audio VAE Decode",
            category=LATENTS,
            inputs=[io.Latent.Input("samples", tooltip="The latent."), _audio_vae("The autoencoder.")],
            outputs=[io.Audio.Output(display_name="Audio")],
        )

    @classmethod
    def execute(cls, samples: Latent, audio_vae: VAE) -> io.NodeOutput:
        """The sound; of a latent of a video with sound, its."""
        latent = samples["samples"]
        latent = latent.unbind()[-1] if latent.is_nested else latent
        sound = audio_vae.decode(latent).movedim(-1, 1).to(latent.device)
        return io.NodeOutput(audio_of(sound, int(audio_vae.first_stage_model.output_sample_rate)))


class LTXVEmptyLatentAudio(io.ComfyNode):
    """Makes empty latents of sound for a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        number = io.NumberDisplay.number
        rate = io.Float.Input(
            "frame_rate", default=25.0, min=1.0, max=1000.0, step=0.01, display_mode=number, tooltip="Frames per second of the video."
        )
        return io.Schema(
            node_id="LTXVEmptyLatentAudio",
            display_name="LTXV Empty Latent Audio",
            category=LATENTS,
            inputs=[
                io.Int.Input("frames_number", default=97, min=1, max=1000, step=1, display_mode=number, tooltip="Frames of the video."),
                io.MultiType.Input(rate, [io.Int]),
                io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, display_mode=number, tooltip="How many latents."),
                _audio_vae("The autoencoder that the latents are for."),
            ],
            outputs=[io.Latent.Output(display_name="Latent")],
        )

    @classmethod
    def execute(cls, frames_number: int, frame_rate: float, batch_size: int, audio_vae: VAE) -> io.NodeOutput:
        """Zeros: batch x channels x times x pitches."""
        network: Any = audio_vae.first_stage_model
        times = network.num_of_latents_from_frames(frames_number, frame_rate)
        return io.NodeOutput(empty_latent(batch_size, audio_vae.latent_channels, times, network.latent_frequency_bins, type="audio"))


class LTXAVTextEncoderLoader(io.ComfyNode):
    """Loads LTX 2's text encoder: a language model, and what a checkpoint has for its states."""

    READS_AHEAD = {"text_encoder": "text_encoders", "ckpt_name": "checkpoints"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXAVTextEncoderLoader",
            display_name="Load LTXV Audio Text Encoder",
            category=LOADERS,
            description="ltxav: gemma 3 12B.",
            inputs=[
                io.Combo.Input("text_encoder", options=folder_paths.get_filename_list("text_encoders")),
                _checkpoint(),
                io.Combo.Input("device", options=["default", "cpu"], advanced=True),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, text_encoder: str, ckpt_name: str, device: str = "default") -> io.NodeOutput:
        """The text encoder; on *device* "cpu" it also computes there. Raises ``ModelFileError`` for files that make none."""
        paths = [
            folder_paths.get_full_path_or_raise("text_encoders", text_encoder),
            folder_paths.get_full_path_or_raise("checkpoints", ckpt_name),
        ]
        options = dict.fromkeys(("load_device", "offload_device"), torch.device("cpu")) if device == "cpu" else {}
        embeddings = folder_paths.get_folder_paths("embeddings")
        clip = sd.load_clip(ckpt_paths=paths, embedding_directory=embeddings, clip_type=sd.CLIPType.LTXV, model_options=options)
        return io.NodeOutput(clip)


comfy_entrypoint = extension_of(LTXVAudioVAELoader, LTXVAudioVAEEncode, LTXVAudioVAEDecode, LTXVEmptyLatentAudio, LTXAVTextEncoderLoader)
