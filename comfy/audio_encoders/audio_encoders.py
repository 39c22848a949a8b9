"""Audio encoders under the names that node packs import: loading them through the RAM model cache, and encoding sound."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.ops
from comfy.audio.normed import older_name
from comfy.audio.resampling import resampled
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model, Wav2Vec2Sizes, read_wav2vec2_sizes
from comfy.audio_encoders.whisper import WhisperLargeV3, WhisperSizes, read_whisper_sizes
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_detection import describe_tensors

WHAT = "the audio encoder"
RATE_HZ = 16000
PREFIXES = ("", "wav2vec2.", "model.")
SUPPORTED = "wav2vec 2.0 (base and large) and Whisper"


class AudioEncoderModel:
    """An audio encoder with its patcher."""

    def __init__(self, sizes: Wav2Vec2Sizes | WhisperSizes) -> None:
        management = comfy.model_management
        self.load_device = management.text_encoder_device()
        self.dtype = management.text_encoder_dtype(self.load_device)
        self.model_sample_rate = RATE_HZ
        kind: Any = Wav2Vec2Model if isinstance(sizes, Wav2Vec2Sizes) else WhisperLargeV3
        self.model: Any = kind(sizes, comfy.ops.manual_cast)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.model, load_device=self.load_device, offload_device=management.text_encoder_offload_device()
        )

    def load_weights(self, source: WeightSource) -> None:
        """Take the weights of *source* (no prefix). Raises ``ModelFileError``."""
        with naming_file(source.name, WHAT):
            plan = plan_conversion(source.shapes(), lambda tensors: {older_name(name): value for name, value in tensors.items()})
        names: WeightNames = load_parameters(self.model, source, plan, self.dtype, WHAT).weight_names()
        self.model.weight_names = names

    def get_sd(self) -> dict[str, torch.Tensor]:
        """The weights, by name."""
        return self.model.state_dict()

    def encode_audio(self, audio: torch.Tensor, sample_rate: int) -> dict[str, Any]:
        """Encode sound (B x channels x samples): {"encoded_audio": states B x tokens x width, "encoded_audio_all_layers": a tuple of those
        before each layer and after the last, "audio_samples": their number at 16 kHz}. States are float32, on the encoder's device.
        """
        comfy.model_management.load_model_gpu(self.patcher)
        sound = resampled(audio, sample_rate, self.model_sample_rate)
        states, every = self.model(sound.to(self.load_device).float())
        return {"encoded_audio": states, "encoded_audio_all_layers": every, "audio_samples": sound.shape[2]}


def load(path: str) -> AudioEncoderModel:
    """The audio encoder of a file. Blocks. Raises ``UnknownModelError`` for one that holds none, ``ModelFileError`` for a damaged one."""
    with ModelFiles(os.fspath(path)) as files:
        return load_parts(files, {"audio_encoder": _EncoderPart(files)})["audio_encoder"]


def load_audio_encoder_from_sd(sd: MutableMapping[str, torch.Tensor], prefix: str = "") -> AudioEncoderModel:
    """The audio encoder of a state dict. Raises ``UnknownModelError`` where it holds none."""
    return _from_source(StateDictSource(dict(sd), "the state dict"))


class _EncoderPart(Part[AudioEncoderModel]):
    """The audio encoder of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> AudioEncoderModel:
        return _from_source(self._files.source())

    def estimate_bytes(self) -> int:
        management = comfy.model_management
        return kept_bytes(self._files.source(), "", management.text_encoder_dtype(management.text_encoder_device()))


def _from_source(source: WeightSource) -> AudioEncoderModel:
    plain = plain_weights(source)
    for prefix in PREFIXES:
        part = PrefixedSource(plain, prefix)
        with naming_file(source.name, WHAT):
            sizes = read_whisper_sizes(part.shapes()) or read_wav2vec2_sizes(part.shapes())
        if sizes is not None:
            model = AudioEncoderModel(sizes)
            model.load_weights(part)
            return model
    found = describe_tensors(source.shapes())
    raise UnknownModelError(f"{source.name} holds no audio encoder that is supported. Found {found}. Supported: {SUPPORTED}")
