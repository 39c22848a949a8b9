"""Reads upscaling models through the RAM model cache; the optional ``spandrel`` package builds them."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_patcher import CoreModelPatcher
from comfy_extras.chainner_models.model_loading import load_state_dict

WRAPPED = "module."
MARK_OF_TRAINING = "module.layers.0.residual_group.blocks.0.norm1.weight"  # of files whose names all begin with WRAPPED


def load_upscale_model(path: str) -> Any:
    """spandrel's descriptor of the model in a file, with a ``patcher``; the cache lends it when it was read before.

    Raises ``RuntimeError`` without spandrel, ``ModelFileError`` for damaged files, and what spandrel raises for unknown models.
    """
    with ModelFiles(path) as files:
        return load_parts(files, {"upscale_model": _UpscalePart(files)})["upscale_model"]


class _UpscalePart(Part[Any]):
    """The upscaling model of a file."""

    is_stored = False  # spandrel copies the weights

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> Any:
        source = self._files.source()
        weights = source.take(list(source.shapes()), None)
        if MARK_OF_TRAINING in weights:
            weights = {key.removeprefix(WRAPPED): tensor for key, tensor in weights.items()}
        descriptor = load_state_dict(weights)
        management = comfy.model_management
        descriptor.patcher = CoreModelPatcher(
            descriptor.model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
        )
        return descriptor

    def estimate_bytes(self) -> int:
        return kept_bytes(self._files.source(), "", None)
