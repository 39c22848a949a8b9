"""Nodes for audio encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_values import Audio, required
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.audio_encoders.audio_encoders import AudioEncoderModel

audio_encoders = lazy_module("comfy.audio_encoders.audio_encoders")
torch = lazy_module("torch")

FOLDER = "audio_encoders"


class AudioEncoderLoader(io.ComfyNode):
    """Loads an audio encoder."""

    READS_AHEAD = {"audio_encoder_name": FOLDER}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AudioEncoderLoader",
            display_name="Load Audio Encoder",
            category="model/loaders",
            inputs=[io.Combo.Input("audio_encoder_name", options=folder_paths.get_filename_list(FOLDER))],
            outputs=[io.AudioEncoder.Output()],
        )

    @classmethod
    def execute(cls, audio_encoder_name: str) -> io.NodeOutput:
        """The audio encoder. Raises ``UnknownModelError`` when the file does not hold one."""
        return io.NodeOutput(audio_encoders.load(folder_paths.get_full_path_or_raise(FOLDER, audio_encoder_name)))


class AudioEncoderEncode(io.ComfyNode):
    """Encodes sound by an audio encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AudioEncoderEncode",
            category="model/conditioning",
            inputs=[io.AudioEncoder.Input("audio_encoder"), io.Audio.Input("audio")],
            outputs=[io.AudioEncoderOutput.Output()],
        )

    @classmethod
    def execute(cls, audio_encoder: AudioEncoderModel, audio: Audio | None) -> io.NodeOutput:
        """What the encoder makes of *audio*. Raises ``ValueError`` without a sound."""
        sound = required(audio, "AudioEncoderEncode")
        return io.NodeOutput(audio_encoder.encode_audio(sound["waveform"], sound["sample_rate"]))


comfy_entrypoint = extension_of(AudioEncoderLoader, AudioEncoderEncode)
