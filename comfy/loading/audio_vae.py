"""The audio autoencoder of a checkpoint, alone, through the RAM model cache: LTX 2's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.model_errors import UnknownModelError
from comfy.families.weight_source import WeightSource
from comfy.images.autoencoders import working_dtypes
from comfy.images.vae import VAE
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts

PREFIXES = ("audio_vae.", "vocoder.")


def load_audio_vae(ckpt_path: str) -> VAE:
    """The autoencoder of a checkpoint's sound. Blocks. Raises ``UnknownModelError`` for a file without one."""
    return _load(ckpt_path, "")


def load_audio_vae_patcher(ckpt_path: str, metadata: Mapping[str, str] | None = None, disable_dynamic: bool = False) -> Any:
    """A new patcher of one with weights of its own."""
    return _load(ckpt_path, INDEPENDENT).patcher


def _load(path: str, bypass: str) -> VAE:
    with ModelFiles(path) as files:
        return load_parts(files, {"audio_vae": _AudioVaePart(files, bypass)})["audio_vae"]


class _AudioVaePart(Part[VAE]):
    """The autoencoder and its vocoder."""

    def __init__(self, files: ModelFiles, bypass: str) -> None:
        super().__init__({"in": "checkpoint"}, bypass)
        self._files = files

    def _source(self) -> WeightSource:
        whole = self._files.source()
        shapes = {key: shape for key, shape in whole.shapes().items() if key.startswith(PREFIXES)}
        if not shapes:
            raise UnknownModelError(f"{whole.name} holds no audio VAE; use a checkpoint of LTX 2, which makes sound")
        return RenamedSource(whole, {key: key for key in shapes}, shapes)

    def load(self) -> VAE:
        vae = VAE(self._source())
        vae.throw_exception_if_invalid()
        vae.patcher.cached_patcher_init = (load_audio_vae_patcher, (self._files.paths[0],))
        return vae

    def estimate_bytes(self) -> int:
        source = self._source()
        dtype: torch.dtype = comfy.model_management.vae_dtype(comfy.model_management.vae_device(), working_dtypes(source))
        return kept_bytes(source, "", dtype)
