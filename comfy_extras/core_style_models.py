"""Core nodes for style models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real
from comfy_extras.node_values import Conditioning

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.loading.style_model import StyleModel

sd = lazy_module("comfy.sd")
torch = lazy_module("torch")


class StyleModelLoader:
    """Loads a style model."""

    RETURN_TYPES = ("STYLE_MODEL",)
    FUNCTION = "load_style_model"
    CATEGORY = "model/loaders"
    READS_AHEAD = {"style_model_name": "style_models"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"style_model_name": (folder_paths.get_filename_list("style_models"),)}}

    def load_style_model(self, style_model_name: str) -> tuple[StyleModel]:
        """The style model."""
        return (sd.load_style_model(folder_paths.get_full_path_or_raise("style_models", style_model_name)),)


class StyleModelApply:
    """Adds a picture, as a style model tells it in text, to conditioning."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply_stylemodel"
    CATEGORY = "model/conditioning"
    SEARCH_ALIASES = ["style transfer"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "style_model": ("STYLE_MODEL",),
                "clip_vision_output": ("CLIP_VISION_OUTPUT",),
                "strength": real(1.0, 0.0, 10.0, 0.001),
                "strength_type": (["multiply", "attn_bias"],),
            }
        }

    def apply_stylemodel(
        self, conditioning: Conditioning, style_model: StyleModel, clip_vision_output: Any, strength: float, strength_type: str
    ) -> tuple[Conditioning]:
        """*conditioning* with the picture's tokens behind the text's; several pictures' stand behind each other.

        "multiply" scales them by *strength*; "attn_bias" lets all others attend to them as often as *strength* says.
        """
        tokens = style_model.get_cond(clip_vision_output).flatten(0, 1).unsqueeze(0)
        tokens, share = (tokens, strength) if strength_type == "attn_bias" else (tokens * strength, 1.0)
        result = []
        for text, given in conditioning:
            options = dict(given)
            if share != 1.0 or "attention_mask" in options:
                options["attention_mask_img_shape"] = options.get("attention_mask_img_shape", (1, 1))
                options["attention_mask"] = _wider_mask(options, text, tokens.shape[1], share)
            result.append([torch.cat([text, tokens.to(text).expand(len(text), -1, -1)], dim=1), options])
        return (result,)


def _wider_mask(options: dict[str, Any], text: Tensor, added: int, share: float) -> Tensor:
    """The mask of *options* (B×N×N, added to attention) for *added* tokens behind the text, which *share* of attention goes to."""
    length = text.shape[1]
    size = length + math.prod(options["attention_mask_img_shape"])
    before = options.get("attention_mask")
    if before is None:
        before = torch.zeros(len(text), size, size, dtype=torch.float16)
    elif before.dtype == torch.bool:
        before = before.to(torch.float16).log()
    old = torch.cat([torch.arange(length), torch.arange(length + added, size + added)])
    wider = torch.zeros(len(text), size + added, size + added, dtype=torch.float16)
    wider[:, old.unsqueeze(1), old] = before.to(wider)
    wider[:, old, length : length + added] = math.log(share) if share else -math.inf
    return wider.to(text.device)


NODE_CLASS_MAPPINGS = {"StyleModelLoader": StyleModelLoader, "StyleModelApply": StyleModelApply}
NODE_DISPLAY_NAME_MAPPINGS = {"StyleModelLoader": "Load Style Model", "StyleModelApply": "Apply Style Model"}
