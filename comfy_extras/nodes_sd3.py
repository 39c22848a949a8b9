"""The node that loads a text encoder of three files; other names of Stable Diffusion 3 models are :mod:`comfy.placeholders`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.placeholders import placeholders
from comfy_extras.core_loaders import load_text_encoders

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP


class TripleCLIPLoader:
    """Loads a text encoder made of three files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"
    READS_AHEAD = dict.fromkeys(("clip_name1", "clip_name2", "clip_name3"), "text_encoders")
    DESCRIPTION = "sd3: clip-l, clip-g and t5 xxl, in any order."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {f"clip_name{number}": (files,) for number in range(1, 4)}}

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, clip_name3: str) -> tuple[CLIP]:
        """The text encoder. Raises ``ModelFileError`` for text models of which no supported family is made."""
        return load_text_encoders([clip_name1, clip_name2, clip_name3])

    load_clip = execute


__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Diffusion 3 models",
    "EmptySD3LatentImage:object CLIPTextEncodeSD3:object ControlNetApplySD3:object SkipLayerGuidanceSD3:object",
)

NODE_CLASS_MAPPINGS = {"TripleCLIPLoader": TripleCLIPLoader}
NODE_DISPLAY_NAME_MAPPINGS = {"TripleCLIPLoader": "Load CLIP (Triple)"}
