"""Loading and saving models: the names that nodes and node packs import."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_detection
import comfy.model_management
from comfy.gligen import load_gligen_file as load_gligen
from comfy.images.autoencoders import working_dtypes
from comfy.images.vae import VAE
from comfy.loading.checkpoint import (
    load_checkpoint_guess_config,
    load_checkpoint_guess_config_clip_only,
    load_checkpoint_guess_config_model_only,
    load_checkpoint_vae_patcher,
    load_state_dict_guess_config,
)
from comfy.loading.components import kept_bytes
from comfy.loading.diffusion_model import load_diffusion_model, load_diffusion_model_state_dict
from comfy.loading.lora import load_bypass_lora_for_models, load_lora_for_models
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.loading.saving import save_checkpoint
from comfy.loading.style_model import StyleModel, load_style_model
from comfy.loading.text_encoder import CLIPType, TEModel, detect_te_model, load_clip, load_clip_model_patcher, load_text_encoder_state_dicts
from comfy.placeholders import placeholders
from comfy.text.encoder import CLIP

log = logging.getLogger(__name__)

__all__ = [
    "CLIP",
    "VAE",
    "CLIPType",
    "StyleModel",
    "TEModel",
    "detect_te_model",
    "load_bypass_lora_for_models",
    "load_checkpoint",
    "load_checkpoint_guess_config",
    "load_checkpoint_guess_config_clip_only",
    "load_checkpoint_guess_config_model_only",
    "load_checkpoint_vae_patcher",
    "load_clip",
    "load_clip_model_patcher",
    "load_diffusion_model",
    "load_diffusion_model_state_dict",
    "load_gligen",
    "load_lora_for_models",
    "load_state_dict_guess_config",
    "load_style_model",
    "load_text_encoder_state_dicts",
    "load_unet",
    "load_unet_state_dict",
    "load_vae",
    "load_vae_patcher",
    "model_detection",
    "save_checkpoint",
]

model_detection = comfy.model_detection
__getattr__, __dir__ = placeholders(__name__, "models of kinds that are not supported", "t5xxl_detect() llama_detect()")


def load_vae(vae_path: str, device: torch.device | None = None) -> VAE:
    """The autoencoder of a file. Raises ``RuntimeError`` when it holds none and ``ModelFileError`` when it is damaged."""
    return _load_vae(vae_path, device, "")


def load_vae_patcher(
    vae_path: str, metadata: Mapping[str, str] | None = None, device: torch.device | None = None, disable_dynamic: bool = False
) -> Any:
    """A new autoencoder patcher with weights of its own."""
    return _load_vae(vae_path, device, INDEPENDENT).patcher


def _load_vae(vae_path: str, device: torch.device | None, bypass: str) -> VAE:
    with ModelFiles(vae_path) as files:
        return load_parts(files, {"vae": _VaePart(files, device, bypass)})["vae"]


class _VaePart(Part[VAE]):
    """The one part of an autoencoder's file."""

    def __init__(self, files: ModelFiles, device: torch.device | None, bypass: str) -> None:
        super().__init__({"load_device": device}, bypass)
        self._files, self._device = files, device

    def load(self) -> VAE:
        vae = VAE(self._files.source(), device=self._device)
        vae.throw_exception_if_invalid()
        vae.patcher.cached_patcher_init = (load_vae_patcher, (self._files.paths[0], None, self._device))
        return vae

    def estimate_bytes(self) -> int:
        management = comfy.model_management
        source = self._files.source()
        return kept_bytes(source, "", management.vae_dtype(self._device or management.vae_device(), working_dtypes(source)))


def load_unet(unet_path: str, dtype: torch.dtype | None = None) -> Any:
    """The older name of :func:`load_diffusion_model`."""
    log.warning("load_unet is deprecated; use load_diffusion_model")
    return load_diffusion_model(unet_path, model_options={"dtype": dtype})


def load_unet_state_dict(sd: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> Any:
    """The older name of :func:`load_diffusion_model_state_dict`."""
    log.warning("load_unet_state_dict is deprecated; use load_diffusion_model_state_dict")
    return load_diffusion_model_state_dict(sd, model_options={"dtype": dtype})


def load_checkpoint(
    config_path: str | None = None,
    ckpt_path: str | None = None,
    output_vae: bool = True,
    output_clip: bool = True,
    embedding_directory: Any = None,
    state_dict: dict[str, torch.Tensor] | None = None,
    config: Any = None,
) -> tuple[Any, CLIP | None, VAE | None]:
    """(model, CLIP, VAE) of *ckpt_path* or *state_dict*. The YAML configuration of old workflows is not needed and not read."""
    if config_path is not None or config is not None:
        log.warning("the configuration file is not read; the checkpoint's own tensors say what it is")
    if state_dict is not None:
        loaded = load_state_dict_guess_config(state_dict, output_vae, output_clip, embedding_directory=embedding_directory)
        if loaded is None:
            raise ValueError("the state dict holds no model of a supported family")
    elif ckpt_path is not None:
        loaded = load_checkpoint_guess_config(ckpt_path, output_vae, output_clip, embedding_directory=embedding_directory)
    else:
        raise ValueError("give ckpt_path or state_dict")
    return loaded[0], loaded[1], loaded[2]
