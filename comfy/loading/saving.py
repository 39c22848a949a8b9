"""Writes a model with its patches applied as one checkpoint in the published key layout."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

import comfy.model_management
import comfy.utils
from comfy.quantisation.weights import is_quantised


class _Model(Protocol):
    """The module of a diffusion model."""

    def state_dict_for_saving(
        self,
        unet_state_dict: dict[str, Tensor],
        clip_state_dict: dict[str, Tensor] | None = None,
        vae_state_dict: dict[str, Tensor] | None = None,
        clip_vision_state_dict: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]: ...


class SavedPatcher(Protocol):
    """The patcher of a diffusion model, as saving it needs it."""

    @property
    def model(self) -> _Model: ...

    def model_state_dict(self) -> dict[str, Tensor]: ...


class SavedTextEncoder(Protocol):
    """A text encoder, as saving it needs it. ``load_model`` gives its patcher, loaded."""

    def load_model(self) -> Any: ...

    def state_dict_for_saving(self) -> dict[str, Tensor]: ...


class HasWeights(Protocol):
    """An autoencoder or an image encoder."""

    def get_sd(self) -> dict[str, Tensor]: ...


def save_checkpoint(
    output_path: str,
    model: SavedPatcher,
    clip: SavedTextEncoder | None = None,
    vae: HasWeights | None = None,
    clip_vision: HasWeights | None = None,
    metadata: Mapping[str, str] | None = None,
    extra_keys: Mapping[str, Tensor] | None = None,
) -> None:
    """Write *model* (a patcher) and, if given, text encoder, autoencoder and image encoder to *output_path*.

    *extra_keys* are tensors to add. Loads what it saves; blocks on disk.
    """
    patchers: list[Any] = [model] if clip is None else [model, clip.load_model()]
    comfy.model_management.load_models_gpu(patchers, force_patch_weights=True)
    unet = comfy.utils.state_dict_prefix_replace(model.model_state_dict(), {"diffusion_model.": ""}, filter_keys=True)
    tensors = model.model.state_dict_for_saving(
        unet,
        clip_state_dict=None if clip is None else clip.state_dict_for_saving(),
        vae_state_dict=None if vae is None else vae.get_sd(),
        clip_vision_state_dict=None if clip_vision is None else clip_vision.get_sd(),
    )
    tensors.update(extra_keys or {})
    contiguous = {key: tensor if is_quantised(tensor) else tensor.contiguous() for key, tensor in tensors.items()}
    comfy.utils.save_torch_file(contiguous, output_path, metadata=metadata or {})
