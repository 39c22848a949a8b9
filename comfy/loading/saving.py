"""Writes a model with its patches applied as one checkpoint in the published key layout."""

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.utils


def save_checkpoint(
    output_path: str,
    model: Any,
    clip: Any = None,
    vae: Any = None,
    clip_vision: Any = None,
    metadata: Mapping[str, str] | None = None,
    extra_keys: Mapping[str, Any] | None = None,
) -> None:
    """Write *model* (a patcher) and, if given, text encoder, autoencoder and image encoder to *output_path*.

    *extra_keys* are tensors to add. Loads what it saves; blocks on disk.
    """
    patchers = [model] if clip is None else [model, clip.load_model()]
    comfy.model_management.load_models_gpu(patchers, force_patch_weights=True)
    unet = comfy.utils.state_dict_prefix_replace(model.model_state_dict(), {"diffusion_model.": ""}, filter_keys=True)
    tensors = model.model.state_dict_for_saving(
        unet,
        clip_state_dict=None if clip is None else clip.state_dict_for_saving(),
        vae_state_dict=None if vae is None else vae.get_sd(),
        clip_vision_state_dict=None if clip_vision is None else clip_vision.get_sd(),
    )
    tensors.update(extra_keys or {})
    comfy.utils.save_torch_file({key: tensor.contiguous() for key, tensor in tensors.items()}, output_path, metadata=metadata or {})
