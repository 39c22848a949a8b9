"""Text encoding nodes for SDXL, whose model also takes picture sizes, crops and, in the refiner, an aesthetic score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_extras.node_inputs import pixels, real, socket, text

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning

CATEGORY = "model/conditioning/stable diffusion"
PICTURE_SIDE = 1024


def _length(default: int = PICTURE_SIDE, **options: Any) -> tuple[str, dict[str, Any]]:
    return pixels(default, step=None, **options)


def _prompt() -> tuple[str, dict[str, Any]]:
    return text(multiline=True, dynamicPrompts=True)


class CLIPTextEncodeSDXLRefiner:
    """Encodes a prompt for the SDXL refiner."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "execute"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "ascore": real(6.0, 0.0, 1000.0),
                "width": _length(),
                "height": _length(),
                "text": _prompt(),
                "clip": socket("CLIP"),
            }
        }

    @classmethod
    def execute(cls, clip: CLIP, ascore: float, width: int, height: int, text: str) -> tuple[Conditioning]:
        """The conditioning for *text*, with the aesthetic score and the picture's size in pixels."""
        sizes = {"aesthetic_score": ascore, "width": width, "height": height}
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict=sizes),)

    encode = execute


class CLIPTextEncodeSDXL:
    """Encodes one prompt for each of SDXL's two text models."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "execute"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip": socket("CLIP"),
                "width": _length(),
                "height": _length(),
                "crop_w": _length(0, advanced=True),
                "crop_h": _length(0, advanced=True),
                "target_width": _length(),
                "target_height": _length(),
                "text_g": _prompt(),
                "text_l": _prompt(),
            }
        }

    @classmethod
    def execute(
        cls, clip: CLIP, width: int, height: int, crop_w: int, crop_h: int, target_width: int, target_height: int, text_g: str, text_l: str
    ) -> tuple[Conditioning]:
        """The conditioning of both texts; the text with fewer chunks of tokens is padded with empty ones. Sizes are in pixels."""
        tokens = {**clip.tokenize(text_g), "l": clip.tokenize(text_l)["l"]}
        chunks = max(len(tokens["g"]), len(tokens["l"]))
        if len(tokens["g"]) != len(tokens["l"]):
            empty = clip.tokenize("")
            tokens.update({name: tokens[name] + empty[name] * (chunks - len(tokens[name])) for name in ("g", "l")})
        sizes = {
            "width": width,
            "height": height,
            "crop_w": crop_w,
            "crop_h": crop_h,
            "target_width": target_width,
            "target_height": target_height,
        }
        return (clip.encode_from_tokens_scheduled(tokens, add_dict=sizes),)

    encode = execute


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (CLIPTextEncodeSDXLRefiner, CLIPTextEncodeSDXL)}

NODE_DISPLAY_NAME_MAPPINGS = {
    "CLIPTextEncodeSDXLRefiner": "CLIP Text Encode (SDXL Refiner)",
    "CLIPTextEncodeSDXL": "CLIP Text Encode (SDXL)",
}
