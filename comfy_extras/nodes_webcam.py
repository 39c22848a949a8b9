"""The node that takes a picture with the browser's camera. The page uploads it as a file before it queues the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_extras.core_image_files import LoadImage
from comfy_extras.node_inputs import boolean, pixels, socket

if TYPE_CHECKING:
    from torch import Tensor


class WebcamCapture(LoadImage):
    """Loads the picture that the page took."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "load_capture"
    ESSENTIALS_CATEGORY = "Basics"
    SEARCH_ALIASES = ["camera input", "live capture", "camera feed", "snapshot"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("WEBCAM"), "width": pixels(0), "height": pixels(0), "capture_on_queue": boolean(True)}}

    def load_capture(self, image: Any, **_page_settings: Any) -> tuple[Tensor]:
        """The picture as a batch of one image."""
        return self.load_image(image)[:1]

    @classmethod
    def IS_CHANGED(cls, image: Any, width: int = 0, height: int = 0, capture_on_queue: bool = True) -> Any:
        """The SHA-256 of the file's contents."""
        return super().IS_CHANGED(image)


NODE_CLASS_MAPPINGS = {"WebcamCapture": WebcamCapture}

NODE_DISPLAY_NAME_MAPPINGS = {"WebcamCapture": "Webcam Capture"}
