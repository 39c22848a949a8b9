"""The node that loads a text encoder of four files; other names of HiDream models are :mod:`comfy.placeholders`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.placeholders import placeholders
from comfy_extras.core_loaders import load_text_encoders

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP


class QuadrupleCLIPLoader:
    """Loads a text encoder made of four files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {f"clip_name{number}": (files,) for number in range(1, 5)}}

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, clip_name3: str, clip_name4: str) -> tuple[CLIP]:
        """The text encoder. Raises ``ModelFileError`` for text models of which no supported family is made."""
        return load_text_encoders([clip_name1, clip_name2, clip_name3, clip_name4])

    load_clip = execute


__getattr__, __dir__ = placeholders(__name__, "HiDream models", "CLIPTextEncodeHiDream:object")

NODE_CLASS_MAPPINGS = {"QuadrupleCLIPLoader": QuadrupleCLIPLoader}
NODE_DISPLAY_NAME_MAPPINGS = {"QuadrupleCLIPLoader": "Load CLIP (Quadruple)"}
