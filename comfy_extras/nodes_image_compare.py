"""The node that shows two images on top of each other with a slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_extras.core_image_files import PreviewImage
from comfy_extras.node_inputs import socket

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "comfy.compare"


class ImageCompare(PreviewImage):
    """Shows two images for comparison; has no outputs."""

    RETURN_TYPES, RETURN_NAMES = (), ()
    FUNCTION = "compare"
    CATEGORY, ESSENTIALS_CATEGORY = "image", "Image Tools"
    EXPERIMENTAL = True
    DESCRIPTION = "Shows two images over each other with a slider."
    SEARCH_ALIASES: list[str] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"compare_view": socket("IMAGECOMPARE", socketless=True)},
            "optional": {"image_a": socket("IMAGE"), "image_b": socket("IMAGE")},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def compare(
        self,
        compare_view: Any = None,
        image_a: Tensor | None = None,
        image_b: Tensor | None = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Write both batches as temporary files for the page."""
        return {"ui": {f"{side}_images": self._shown(images, side) for side, images in (("a", image_a), ("b", image_b))}}

    def _shown(self, images: Any, side: str) -> list[dict[str, str]]:
        if images is None or len(images) == 0:
            return []
        return self.save_images(images, f"{_PREFIX}.{side}")["ui"]["images"]


NODE_CLASS_MAPPINGS = {"ImageCompare": ImageCompare}

NODE_DISPLAY_NAME_MAPPINGS = {"ImageCompare": "Compare Images"}
