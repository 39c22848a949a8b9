"""Core nodes for GLIGEN: texts for boxes of the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import pixels
from comfy_extras.node_values import Conditioning

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP

sd = lazy_module("comfy.sd")
torch = lazy_module("torch")

PIXELS_PER_CELL = 8


class GLIGENLoader:
    """Loads a GLIGEN model."""

    RETURN_TYPES = ("GLIGEN",)
    FUNCTION = "load_gligen"
    CATEGORY = "model/loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"gligen_name": (folder_paths.get_filename_list("gligen"),)}}

    def load_gligen(self, gligen_name: str) -> tuple[Any]:
        """Its patcher."""
        return (sd.load_gligen(folder_paths.get_full_path_or_raise("gligen", gligen_name)),)


class GLIGENTextBoxApply:
    """Says what is to be in a box of the picture."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "model/conditioning/gligen"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning_to": ("CONDITIONING",),
                "clip": ("CLIP",),
                "gligen_textbox_model": ("GLIGEN",),
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True}),
                "width": pixels(64, 8, 8),
                "height": pixels(64, 8, 8),
                "x": pixels(0, 0, 8),
                "y": pixels(0, 0, 8),
            }
        }

    def append(
        self, conditioning_to: Conditioning, clip: CLIP, gligen_textbox_model: Any, text: str, width: int, height: int, x: int, y: int
    ) -> tuple[Conditioning]:
        """The conditioning with one more box, *x*, *y*, *width* and *height* in pixels."""
        pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled="unprojected")[1]
        box = (pooled, *(side // PIXELS_PER_CELL for side in (height, width, y, x)))
        changed = []
        for context, options in (entry[:2] for entry in conditioning_to):
            before = options["gligen"][2] if "gligen" in options else []
            changed.append([context, {**options, "gligen": ("position", gligen_textbox_model, [*before, box])}])
        return (changed,)


NODE_CLASS_MAPPINGS = {"GLIGENLoader": GLIGENLoader, "GLIGENTextBoxApply": GLIGENTextBoxApply}
NODE_DISPLAY_NAME_MAPPINGS = {"GLIGENLoader": "Load GLIGEN Model", "GLIGENTextBoxApply": "Apply GLIGEN Text Box"}
