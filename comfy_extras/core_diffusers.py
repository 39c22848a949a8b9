"""The core node that loads a model from a folder of the Diffusers library."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
from comfy.lazy_import import lazy_module
from utils.folder_walk import walk

diffusers_load = lazy_module("comfy.diffusers_load")

INDEX = "model_index.json"


class DiffusersLoader:
    """Loads model, text encoder and autoencoder of a folder; the older node."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "model/loaders"
    DEPRECATED = True
    SEARCH_ALIASES = ["load diffusers model"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model_path": (sorted(_model_folders()),)}}

    def load_checkpoint(self, model_path: str, output_vae: bool = True, output_clip: bool = True) -> tuple[Any, Any, Any]:
        """Model patcher, CLIP and VAE; None for those not asked for. Raises ``FileNotFoundError`` for an unknown folder."""
        folder = _model_folders().get(model_path)
        if folder is None:
            raise FileNotFoundError(f"there is no folder {model_path!r} with a {INDEX} in the folders for diffusers models")
        return diffusers_load.load_diffusers(folder, output_vae, output_clip, folder_paths.get_folder_paths("embeddings"))


NODE_CLASS_MAPPINGS = {"DiffusersLoader": DiffusersLoader}


def _model_folders() -> dict[str, str]:
    """{name: path} of the folders with an index; the first of those with one name."""
    found: dict[str, str] = {}
    for top in filter(os.path.isdir, folder_paths.get_folder_paths("diffusers")):
        for visited in walk(top):
            if any(entry.name == INDEX for entry in visited.files):
                found.setdefault(visited.below or ".", visited.path)
    return found
